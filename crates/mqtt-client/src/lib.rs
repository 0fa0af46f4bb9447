//! MQTT sessions as tower services: publish, subscribe, streams, and sessions from a pool
