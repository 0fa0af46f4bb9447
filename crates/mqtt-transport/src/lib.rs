//! Byte streams to an MQTT server: endpoints, connectors as tower services, deadlines
