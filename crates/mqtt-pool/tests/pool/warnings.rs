//! What a pool warns of.

use std::{
    error::Error,
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// The warnings of this thread, each as the text of its fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Two, of which one hears: beside a single one, tracing would ask whichever thread is the
    /// first to warn whether anybody listens, and take its answer for all.
    pub(crate) fn listen() -> (Self, [Dispatch; 2], DefaultGuard) {
        let warnings = Self::default();
        let [first, second] = [(); 2].map(|()| Dispatch::new(warnings.clone()));
        let guard = tracing::dispatcher::set_default(&first);
        (warnings, [first, second], guard)
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panics in here"))
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0.lock().expect("no test panics in here").push(text.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{}={value:?};", field.name()).expect("a string takes all");
    }

    /// With its causes, as the formatter of tracing-subscriber has them.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(value), |&error| error.source());
        let chain: Vec<_> = causes.map(ToString::to_string).collect();
        self.record_debug(field, &chain);
    }
}
