//! Properties of MQTT 5.0, one struct for each packet that has any.
//!
//! A field is `None`, or an empty list, when the property is absent. 3.1.1 has no properties: there
//! they are neither sent nor received, and those of CONNECT that state our own limits still hold
//! for this side.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
    ops::{Deref, DerefMut},
};

use bytes::BufMut;

use crate::{
    BinaryData, EncodeError, Malformed, QoS, Secret, TopicName, Utf8String, Version,
    codec::{
        MAX_USER_PROPERTIES,
        read::Reader,
        write::{self, prefixed},
    },
};

/// A packet's properties; takes one word and no allocation while there are none.
///
/// Dereferences to the property struct; the first write through it allocates.
#[derive(Clone)]
pub struct Properties<P>(Option<Box<P>>);

impl<P> Default for Properties<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P> From<P> for Properties<P> {
    fn from(properties: P) -> Self {
        Self(Some(Box::new(properties)))
    }
}

impl<P: PropertySet> Deref for Properties<P> {
    type Target = P;

    fn deref(&self) -> &P {
        match &self.0 {
            Some(properties) => properties,
            None => P::empty(),
        }
    }
}

impl<P: PropertySet + Default> DerefMut for Properties<P> {
    fn deref_mut(&mut self) -> &mut P {
        self.0.get_or_insert_default()
    }
}

impl<P: PropertySet + PartialEq> PartialEq for Properties<P> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<P: PropertySet + Eq> Eq for Properties<P> {}

impl<P: fmt::Debug> fmt::Debug for Properties<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(properties) => properties.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl<P: PropertySet + Default + PartialEq> Properties<P> {
    /// Whether no property is present.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0
            .as_deref()
            .is_none_or(|properties| properties == P::empty())
    }

    /// Reads the property section where the version has one.
    pub(crate) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        match version {
            Version::V3 => Ok(Self::default()),
            Version::V5 => {
                let len = reader.variable_byte_integer()?;
                if len == 0 {
                    return Ok(Self::default());
                }
                let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
                let mut section = reader.section(len)?;
                let mut properties = P::default();
                while !section.is_empty() {
                    let id = section.variable_byte_integer()?;
                    match u8::try_from(id) {
                        Ok(id) if PROPERTY_IDS.contains(&id) => {
                            properties.read_one(id, &mut section)?
                        }
                        _ => return Err(Malformed::UnknownProperty(id)),
                    }
                }
                Ok(Self::from(properties))
            }
        }
    }

    /// Writes the property section where the version has one: at least its length of zero
    /// `[MQTT5-2.2.2-1]`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, version: Version) -> Result<(), EncodeError> {
        match (version, &self.0) {
            (Version::V3, _) => Ok(()),
            (Version::V5, None) => {
                out.put_u8(0);
                Ok(())
            }
            (Version::V5, Some(properties)) => {
                write::with_length(out, |out| properties.write_all(out))
            }
        }
    }
}

/// What [`Properties`] needs of a property struct. Implemented by those of this module only.
pub trait PropertySet: Sized + 'static + private::Sealed {
    /// All properties absent.
    #[doc(hidden)]
    fn empty() -> &'static Self;
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn read_one(&mut self, id: u8, reader: &mut Reader<'_>) -> Result<(), Malformed>;
    #[doc(hidden)]
    fn write_all(&self, out: &mut Vec<u8>);
}

mod private {
    #[allow(missing_debug_implementations, reason = "a seal has no values")]
    pub trait Sealed {}
}

/// Every property identifier of the specification (5.0 section 2.2.2.2).
const PROPERTY_IDS: [u8; 27] = [
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C,
    0x1F, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A,
];

/// A subscription identifier: 1 to 268,435,455 (5.0 section 3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The identifier, or `None` out of its range.
    pub fn new(id: u32) -> Option<Self> {
        match NonZeroU32::new(id) {
            Some(id) if id.get() <= 268_435_455 => Some(Self(id)),
            _ => None,
        }
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

/// How a property's value stands on the wire.
trait Value: Sized {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed>;
    fn write(&self, out: &mut Vec<u8>);
}

impl Value for bool {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::PropertyValue(id)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }
}

/// Maximum QoS: 0 or 1 on the wire, since 2 is said by its absence.
impl Value for QoS {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            _ => Err(Malformed::PropertyValue(id)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.bits());
    }
}

impl Value for u16 {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        reader.u16()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(*self);
    }
}

impl Value for u32 {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        reader.u32()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(*self);
    }
}

impl Value for NonZeroU16 {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed> {
        const TOPIC_ALIAS: u8 = 0x23;
        Self::new(reader.u16()?).ok_or(match id {
            TOPIC_ALIAS => Malformed::ZeroTopicAlias,
            _ => Malformed::PropertyValue(id),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.get());
    }
}

impl Value for NonZeroU32 {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed> {
        Self::new(reader.u32()?).ok_or(Malformed::PropertyValue(id))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.get());
    }
}

impl Value for SubscriptionId {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, Malformed> {
        Self::new(reader.variable_byte_integer()?).ok_or(Malformed::PropertyValue(id))
    }

    fn write(&self, out: &mut Vec<u8>) {
        write::variable_byte_integer(out, usize::try_from(self.value()).unwrap_or(usize::MAX));
    }
}

impl Value for Utf8String {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        reader.text()
    }

    fn write(&self, out: &mut Vec<u8>) {
        prefixed(out, self.as_bytes());
    }
}

/// The response topic `[MQTT5-3.3.2-14]`.
impl Value for TopicName {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        let text = reader.text()?;
        Self::new(text.into_inner()).map_err(Malformed::ResponseTopic)
    }

    fn write(&self, out: &mut Vec<u8>) {
        prefixed(out, self.as_bytes());
    }
}

impl Value for BinaryData {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        reader.binary()
    }

    fn write(&self, out: &mut Vec<u8>) {
        prefixed(out, self);
    }
}

impl Value for Secret {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        reader.secret()
    }

    fn write(&self, out: &mut Vec<u8>) {
        prefixed(out, self.expose());
    }
}

/// A user property: a name and a value `[MQTT5-1.5.7-1]`.
pub type UserProperty = (Utf8String, Utf8String);

impl Value for UserProperty {
    fn read(reader: &mut Reader<'_>, _: u8) -> Result<Self, Malformed> {
        Ok((reader.text()?, reader.text()?))
    }

    fn write(&self, out: &mut Vec<u8>) {
        prefixed(out, self.0.as_bytes());
        prefixed(out, self.1.as_bytes());
    }
}

/// A place for a property that may stand once, or many times.
trait Place {
    const EMPTY: Self;
    fn read(&mut self, reader: &mut Reader<'_>, id: u8) -> Result<(), Malformed>;
    fn write(&self, out: &mut Vec<u8>, id: u8);
}

impl<V: Value> Place for Option<V> {
    const EMPTY: Self = None;

    fn read(&mut self, reader: &mut Reader<'_>, id: u8) -> Result<(), Malformed> {
        if self.is_some() {
            return Err(Malformed::RepeatedProperty(id));
        }
        *self = Some(V::read(reader, id)?);
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, id: u8) {
        if let Some(value) = self {
            out.put_u8(id);
            value.write(out);
        }
    }
}

impl<V: Value> Place for Vec<V> {
    const EMPTY: Self = Self::new();

    fn read(&mut self, reader: &mut Reader<'_>, id: u8) -> Result<(), Malformed> {
        if self.len() >= MAX_USER_PROPERTIES {
            return Err(Malformed::TooManyUserProperties);
        }
        self.push(V::read(reader, id)?);
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, id: u8) {
        for value in self {
            out.put_u8(id);
            value.write(out);
        }
    }
}

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $id:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(clippy::exhaustive_structs, reason = "the specification's list is closed")]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            /// Names and values that mean something to the application only, in order.
            pub user_properties: Vec<UserProperty>,
        }

        impl private::Sealed for $name {}

        impl PropertySet for $name {
            fn empty() -> &'static Self {
                static EMPTY: $name = $name { $($field: Place::EMPTY,)* user_properties: Place::EMPTY };
                &EMPTY
            }

            #[allow(private_interfaces, reason = "the trait is sealed")]
            fn read_one(&mut self, id: u8, reader: &mut Reader<'_>) -> Result<(), Malformed> {
                match id {
                    $($id => self.$field.read(reader, id),)*
                    0x26 => Place::read(&mut self.user_properties, reader, id),
                    _ => Err(Malformed::MisplacedProperty(id)),
                }
            }

            fn write_all(&self, out: &mut Vec<u8>) {
                $(Place::write(&self.$field, out, $id);)*
                Place::write(&self.user_properties, out, 0x26);
            }
        }
    )*};
}

properties! {
    /// Properties of CONNECT (5.0 section 3.1.2.11).
    ConnectProperties {
        /// How long the session outlives its connection, in seconds; absent means 0, and
        /// `u32::MAX` never expires.
        session_expiry_interval: Option<u32> = 0x11,
        /// How many QoS 1 and 2 publishes the client takes unacknowledged; absent means 65,535.
        receive_maximum: Option<NonZeroU16> = 0x21,
        /// The largest packet the client takes, in bytes; absent means no limit.
        maximum_packet_size: Option<NonZeroU32> = 0x27,
        /// The highest topic alias the client takes; absent means 0, none.
        topic_alias_maximum: Option<u16> = 0x22,
        /// Whether the server may send response information; absent means no.
        request_response_information: Option<bool> = 0x19,
        /// Whether the server may send reason strings and user properties everywhere; absent means yes.
        request_problem_information: Option<bool> = 0x17,
        /// The name of the enhanced authentication method.
        authentication_method: Option<Utf8String> = 0x15,
        /// Data of the authentication method.
        authentication_data: Option<Secret> = 0x16,
    }

    /// Properties of a will (5.0 section 3.1.3.2).
    WillProperties {
        /// How long after the connection's end the will is published, in seconds; absent means 0.
        will_delay_interval: Option<u32> = 0x18,
        /// Whether the payload is UTF-8; absent means no.
        payload_format_indicator: Option<bool> = 0x01,
        /// How long the message is of use, in seconds.
        message_expiry_interval: Option<u32> = 0x02,
        /// What the payload is, such as a MIME type.
        content_type: Option<Utf8String> = 0x03,
        /// Where to answer.
        response_topic: Option<TopicName> = 0x08,
        /// What to put into the answer.
        correlation_data: Option<BinaryData> = 0x09,
    }

    /// Properties of CONNACK (5.0 section 3.2.2.3).
    ConnAckProperties {
        /// How long the server keeps the session, if not as asked, in seconds.
        session_expiry_interval: Option<u32> = 0x11,
        /// How many QoS 1 and 2 publishes the server takes unacknowledged; absent means 65,535.
        receive_maximum: Option<NonZeroU16> = 0x21,
        /// The highest QoS the server takes; absent means 2.
        maximum_qos: Option<QoS> = 0x24,
        /// Whether the server keeps retained messages; absent means yes.
        retain_available: Option<bool> = 0x25,
        /// The largest packet the server takes, in bytes; absent means no limit.
        maximum_packet_size: Option<NonZeroU32> = 0x27,
        /// The client identifier the server chose for a client without one.
        assigned_client_identifier: Option<Utf8String> = 0x12,
        /// The highest topic alias the server takes; absent means 0, none.
        topic_alias_maximum: Option<u16> = 0x22,
        /// A text for people.
        reason_string: Option<Utf8String> = 0x1F,
        /// Whether the server takes filters with wildcards; absent means yes.
        wildcard_subscription_available: Option<bool> = 0x28,
        /// Whether the server takes subscription identifiers; absent means yes.
        subscription_identifiers_available: Option<bool> = 0x29,
        /// Whether the server takes shared subscriptions; absent means yes.
        shared_subscription_available: Option<bool> = 0x2A,
        /// The keep-alive to use instead of the client's, in seconds.
        server_keep_alive: Option<u16> = 0x13,
        /// A basis for response topics.
        response_information: Option<Utf8String> = 0x1A,
        /// Another server to use.
        server_reference: Option<Utf8String> = 0x1C,
        /// The name of the enhanced authentication method.
        authentication_method: Option<Utf8String> = 0x15,
        /// Data of the authentication method.
        authentication_data: Option<Secret> = 0x16,
    }

    /// Properties of PUBLISH (5.0 section 3.3.2.3).
    PublishProperties {
        /// Whether the payload is UTF-8; absent means no.
        payload_format_indicator: Option<bool> = 0x01,
        /// How long the message is of use, in seconds.
        message_expiry_interval: Option<u32> = 0x02,
        /// A number that stands for the topic on this connection.
        topic_alias: Option<NonZeroU16> = 0x23,
        /// Where to answer.
        response_topic: Option<TopicName> = 0x08,
        /// What to put into the answer.
        correlation_data: Option<BinaryData> = 0x09,
        /// The identifiers of the subscriptions a received message came by.
        subscription_identifiers: Vec<SubscriptionId> = 0x0B,
        /// What the payload is, such as a MIME type.
        content_type: Option<Utf8String> = 0x03,
    }

    /// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    AckProperties {
        /// A text for people.
        reason_string: Option<Utf8String> = 0x1F,
    }

    /// Properties of SUBSCRIBE (5.0 section 3.8.2.1).
    SubscribeProperties {
        /// A number that comes back with each message of these subscriptions.
        subscription_identifier: Option<SubscriptionId> = 0x0B,
    }

    /// Properties of UNSUBSCRIBE (5.0 section 3.10.2.1).
    UnsubscribeProperties {}

    /// Properties of DISCONNECT (5.0 section 3.14.2.2).
    DisconnectProperties {
        /// A new session expiry interval, in seconds; from a client only.
        session_expiry_interval: Option<u32> = 0x11,
        /// A text for people.
        reason_string: Option<Utf8String> = 0x1F,
        /// Another server to use; from a server only.
        server_reference: Option<Utf8String> = 0x1C,
    }

    /// Properties of AUTH (5.0 section 3.15.2.2).
    AuthProperties {
        /// The name of the enhanced authentication method.
        authentication_method: Option<Utf8String> = 0x15,
        /// Data of the authentication method.
        authentication_data: Option<Secret> = 0x16,
        /// A text for people.
        reason_string: Option<Utf8String> = 0x1F,
    }
}
