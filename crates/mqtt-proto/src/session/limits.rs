//! What the server of a connection takes, from its CONNACK; checked before anything is sent.

use crate::{
    Message, QoS, UsageError, Version,
    packet::{ConnAck, Properties, SubscribeFilter, SubscribeProperties},
};

/// The server's limits (5.0 section 3.2.2.3). A 3.1.1 server announces none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most QoS 1 and 2 publishes it takes unacknowledged.
    pub receive_maximum: u16,
    /// The highest QoS it takes.
    pub maximum_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain_available: bool,
    /// The largest packet it takes, in bytes.
    pub maximum_packet_size: u32,
    /// The highest topic alias it takes.
    pub topic_alias_maximum: u16,
    /// Whether it takes filters with wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether it takes subscription identifiers.
    pub subscription_identifiers_available: bool,
    /// Whether it takes shared subscriptions.
    pub shared_subscription_available: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_maximum: u16::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
        }
    }
}

impl Limits {
    /// What a server takes that accepted with these words.
    pub fn of(connack: &ConnAck) -> Self {
        let announced = &connack.properties;
        let default = Self::default();
        Self {
            receive_maximum: announced
                .receive_maximum
                .map_or(default.receive_maximum, Into::into),
            maximum_qos: announced.maximum_qos.unwrap_or(default.maximum_qos),
            retain_available: announced
                .retain_available
                .unwrap_or(default.retain_available),
            maximum_packet_size: announced
                .maximum_packet_size
                .map_or(default.maximum_packet_size, Into::into),
            topic_alias_maximum: announced
                .topic_alias_maximum
                .unwrap_or(default.topic_alias_maximum),
            wildcard_subscription_available: announced
                .wildcard_subscription_available
                .unwrap_or(true),
            subscription_identifiers_available: announced
                .subscription_identifiers_available
                .unwrap_or(true),
            shared_subscription_available: announced.shared_subscription_available.unwrap_or(true),
        }
    }

    /// All but the size, which is known once the packet is encoded.
    pub(super) fn check(&self, message: &Message) -> Result<(), UsageError> {
        if message.qos > self.maximum_qos {
            return Err(UsageError::QoSNotSupported);
        }
        if message.retain && !self.retain_available {
            return Err(UsageError::RetainNotSupported);
        }
        if message.properties.is_empty() {
            return Ok(());
        }
        if !message.properties.subscription_identifiers.is_empty() {
            return Err(UsageError::SubscriptionIdentifierInPublish);
        }
        match message.properties.topic_alias {
            Some(alias) if alias.get() > self.topic_alias_maximum => {
                Err(UsageError::TopicAliasTooLarge {
                    alias: alias.get(),
                    max: self.topic_alias_maximum,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether a message sent on an earlier connection may be sent on this one.
    pub(super) fn check_resend(&self, message: &Message, version: Version) -> bool {
        let mut head = Vec::new();
        let id = crate::PacketId::new(1);
        self.check(message).is_ok()
            && message
                .encode_head(id, true, version, &mut head)
                .is_ok_and(|size| {
                    u32::try_from(size).is_ok_and(|size| size <= self.maximum_packet_size)
                })
    }

    pub(super) fn check_subscribe(
        &self,
        filters: &[SubscribeFilter],
        properties: &Properties<SubscribeProperties>,
    ) -> Result<(), UsageError> {
        if properties.subscription_identifier.is_some() && !self.subscription_identifiers_available
        {
            return Err(UsageError::SubscriptionIdentifierNotSupported);
        }
        for SubscribeFilter { filter, options } in filters {
            let shared = filter.share_name().is_some();
            if shared && !self.shared_subscription_available {
                return Err(UsageError::SharedNotSupported);
            }
            if shared && options.no_local {
                return Err(UsageError::NoLocalShared);
            }
            if filter.has_wildcard() && !self.wildcard_subscription_available {
                return Err(UsageError::WildcardNotSupported);
            }
        }
        Ok(())
    }
}
