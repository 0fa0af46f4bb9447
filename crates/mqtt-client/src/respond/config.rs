//! How requests are answered.

use std::{error::Error, fmt, sync::Arc};

use mqtt_pool::ConfigErrors;
use mqtt_proto::TopicFilter;

use crate::respond::Reply;

type ErrorReply = Arc<dyn Fn(&(dyn Error + Send + Sync)) -> Option<Reply> + Send + Sync>;

/// Options of a [`Responder`](crate::Responder).
#[derive(Clone)]
#[non_exhaustive]
pub struct ResponderConfig {
    /// How many requests are worked on at a time, from the call of the service until the reply is
    /// acknowledged; others wait in the subscription. Default 64: enough to keep a few cores or a back
    /// end busy, and few enough that one requester does not take all memory.
    pub max_running: usize,
    /// Which response topics are answered to. The default, `None`, answers to any but those of the
    /// server's own, which begin with `$`. Whoever may send requests then makes this session publish
    /// wherever the server lets it: where requesters are not trusted, give the filter that their
    /// response topics match, such as `responses/#`; it may name topics with `$`.
    ///
    /// A response topic that is one of the requests' own is never answered to, since the reply would
    /// come back as a request.
    pub response_filter: Option<TopicFilter>,
    /// Whether the service is called for messages without a response topic too, whose reply goes
    /// nowhere. Default false: they are counted and ignored.
    pub serve_without_response_topic: bool,
    /// Whether requests at QoS 1 and 2 that were not answered when the responder ends come again, to
    /// this session's next connection if the server keeps the session: those given up, and those
    /// not begun. Default false: they are rejected, and their requesters' time runs out.
    ///
    /// Until that next connection the acknowledgements of all later messages of the session wait
    /// behind them, see [`Ack`](crate::Ack): for sessions that leave with their responder.
    pub gives_back: bool,
    error_reply: Option<ErrorReply>,
}

impl Default for ResponderConfig {
    fn default() -> Self {
        Self {
            max_running: 64,
            response_filter: None,
            serve_without_response_topic: false,
            gives_back: false,
            error_reply: None,
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl ResponderConfig {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

setters! {
    with_max_running max_running: usize,
    with_response_filter response_filter: Option<TopicFilter>,
    with_serve_without_response_topic serve_without_response_topic: bool,
    with_gives_back gives_back: bool,
}

impl ResponderConfig {
    /// Answers requests whose service failed with what this makes of the error, such as a user
    /// property; `None` answers nothing, as does not giving it, and the requester's time runs out.
    ///
    /// A panic of the service is not answered.
    #[must_use]
    pub fn with_error_reply(
        mut self,
        reply: impl Fn(&(dyn Error + Send + Sync)) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        self.error_reply = Some(Arc::new(reply));
        self
    }

    /// Everything that is wrong with the options, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if self.max_running == 0 {
            let hint = "1 answers one request after the other";
            errors.push("responder.max_running", 0, "at least 1", hint);
        }
        errors.into_result()
    }

    pub(super) fn error_reply(&self, error: &(dyn Error + Send + Sync)) -> Option<Reply> {
        self.error_reply.as_ref().and_then(|reply| reply(error))
    }
}

impl fmt::Debug for ResponderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponderConfig")
            .field("max_running", &self.max_running)
            .field("response_filter", &self.response_filter)
            .field(
                "serve_without_response_topic",
                &self.serve_without_response_topic,
            )
            .field("gives_back", &self.gives_back)
            .field("has_error_reply", &self.error_reply.is_some())
            .finish()
    }
}
