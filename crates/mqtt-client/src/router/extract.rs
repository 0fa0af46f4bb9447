//! What handlers take of a message.

use std::{convert::Infallible, str::Utf8Error};

use bytes::Bytes;
use mqtt_proto::{
    Message, TopicName,
    packet::{Properties, PublishProperties},
};
use serde::de::DeserializeOwned;

use super::{
    error::BoxError,
    incoming::Incoming,
    path::{self, PathError},
};

/// What a handler can take as an argument.
///
/// | argument | gets | rejects |
/// | --- | --- | --- |
/// | [`Path<T>`](Path) | what the pattern has captured | what does not parse as `T` |
/// | [`Bytes`], [`String`] | the payload | a `String` that is not UTF-8 |
/// | `Json<T>` (feature `json`) | the payload | what is not JSON, or not of a `T` |
/// | [`Message`], [`TopicName`], [`Properties<PublishProperties>`] | the message, or that part of it | nothing |
/// | [`State<S>`](State) | a clone of the router's state | nothing |
/// | [`Incoming`] | all there is | nothing |
/// | `Result<T, T::Rejection>`, `T` any of these | what `T` gets, or why not | nothing |
///
/// It looks at the message and does not wait: what has to wait belongs into the handler, or into a layer.
/// The payload may be taken by several arguments, since it is shared.
pub trait FromMessage<S>: Sized {
    /// Why a message has not what is asked for.
    type Rejection: Into<BoxError>;

    /// Takes it.
    ///
    /// # Errors
    ///
    /// Ends the handling of the message as a failure, with
    /// [`HandlerError::Rejected`](super::HandlerError::Rejected).
    fn from_message(incoming: &Incoming, state: &S) -> Result<Self, Self::Rejection>;
}

/// What the pattern has captured of the topic, by serde.
///
/// One capture is taken as a value of its own: `Path<String>`, `Path<u32>`. Several are a tuple, in the order
/// of the pattern, or a struct or map by their names. What `{*rest}` has taken may be a `Vec`, with an
/// element for each level. Numbers, booleans, characters and enums without fields are parsed from a level's
/// text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "made to be taken apart")]
pub struct Path<T>(pub T);

/// A clone of what [`Router::with_state`](super::Router::with_state) was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "made to be taken apart")]
pub struct State<S>(pub S);

/// The payload as JSON.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "made to be taken apart")]
pub struct Json<T>(pub T);

impl<S, T: DeserializeOwned> FromMessage<S> for Path<T> {
    type Rejection = PathError;

    fn from_message(incoming: &Incoming, _: &S) -> Result<Self, PathError> {
        path::deserialize(incoming).map(Self)
    }
}

impl<S: Clone> FromMessage<S> for State<S> {
    type Rejection = Infallible;

    fn from_message(_: &Incoming, state: &S) -> Result<Self, Infallible> {
        Ok(Self(state.clone()))
    }
}

#[cfg(feature = "json")]
impl<S, T: DeserializeOwned> FromMessage<S> for Json<T> {
    type Rejection = serde_json::Error;

    fn from_message(incoming: &Incoming, _: &S) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&incoming.message().payload).map(Self)
    }
}

impl<S> FromMessage<S> for String {
    type Rejection = Utf8Error;

    fn from_message(incoming: &Incoming, _: &S) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&incoming.message().payload).map(Self::from)
    }
}

impl<S, T: FromMessage<S>> FromMessage<S> for Result<T, T::Rejection> {
    type Rejection = Infallible;

    fn from_message(incoming: &Incoming, state: &S) -> Result<Self, Infallible> {
        Ok(T::from_message(incoming, state))
    }
}

macro_rules! always_there {
    ($($type:ty: $incoming:ident => $part:expr;)*) => {$(
        impl<S> FromMessage<S> for $type {
            type Rejection = Infallible;

            fn from_message($incoming: &Incoming, _: &S) -> Result<Self, Infallible> {
                Ok($part)
            }
        }
    )*};
}

always_there! {
    Incoming: incoming => incoming.clone();
    Message: incoming => incoming.message().clone();
    TopicName: incoming => incoming.message().topic.clone();
    Bytes: incoming => incoming.message().payload.clone();
    Properties<PublishProperties>: incoming => incoming.message().properties.clone();
}
