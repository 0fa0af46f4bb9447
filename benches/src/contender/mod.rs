//! The contenders, each driven as its documentation advises, on a current-thread runtime.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::{Contender, Error, Report, Work, process};

mod ours;
mod raw;
mod rumqttc;

/// Far longer than any run takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Does `operations` of a work and reports them, after a tenth as many that are not counted.
pub async fn run(
    contender: Contender,
    work: Work,
    server: SocketAddr,
    operations: u64,
) -> Result<Report, Error> {
    if work == Work::Idle {
        return idle(contender, server, operations).await;
    }
    perform(contender, work, server, (operations / 10).max(1)).await?;
    let (cpu, wall) = (process::cpu_time()?, Instant::now());
    perform(contender, work, server, operations).await?;
    let wall = u64::try_from(wall.elapsed().as_nanos())?;
    Ok(Report::new(operations, process::cpu_time()? - cpu, wall))
}

async fn perform(
    contender: Contender,
    work: Work,
    server: SocketAddr,
    operations: u64,
) -> Result<(), Error> {
    // A message that is waited for and was lost would otherwise hold up the table for ever.
    tokio::time::timeout(PATIENCE, started(contender, work, server, operations)).await?
}

async fn started(
    contender: Contender,
    work: Work,
    server: SocketAddr,
    operations: u64,
) -> Result<(), Error> {
    use mqtt_client::Version;
    match contender {
        Contender::Raw => raw::perform(work, server, operations),
        Contender::Ours3 => ours::perform(Version::V3, work, server, operations).await,
        Contender::Ours5 => ours::perform(Version::V5, work, server, operations).await,
        Contender::Rumqttc => rumqttc::perform(work, server, operations).await,
    }
}

/// Opens connections, the first few before it looks at the memory, and holds them.
async fn idle(contender: Contender, server: SocketAddr, connections: u64) -> Result<Report, Error> {
    const FIRST: u64 = 20;
    let mut held = Held::default();
    held.open(contender, server, FIRST).await?;
    let (memory, wall) = (process::resident_memory()?, Instant::now());
    held.open(contender, server, connections).await?;
    // Whatever a connection does once it is idle, it has done.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let wall = u64::try_from(wall.elapsed().as_nanos())?;
    Ok(Report::new(
        connections,
        process::resident_memory()?.saturating_sub(memory),
        wall,
    ))
}

/// Connections that are held open.
#[derive(Default)]
struct Held {
    raw: Vec<std::net::TcpStream>,
    ours: Vec<mqtt_client::Session>,
    rumqttc: Vec<::rumqttc::AsyncClient>,
}

impl Held {
    async fn open(
        &mut self,
        contender: Contender,
        server: SocketAddr,
        n: u64,
    ) -> Result<(), Error> {
        use mqtt_client::Version;
        let ours = match contender {
            Contender::Ours3 => Some(ours::Opener::new(Version::V3, server)?),
            Contender::Ours5 => Some(ours::Opener::new(Version::V5, server)?),
            Contender::Raw | Contender::Rumqttc => None,
        };
        for number in 0..n {
            match contender {
                Contender::Raw => self.raw.push(raw::connect(server)?),
                Contender::Ours3 | Contender::Ours5 => {
                    if let Some(ours) = &ours {
                        self.ours.push(ours.open(number).await?);
                    }
                }
                Contender::Rumqttc => self.rumqttc.push(rumqttc::hold(server).await?),
            }
        }
        Ok(())
    }
}
