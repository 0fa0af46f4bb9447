//! Servers to test MQTT programs against: scripted, embedded, and an installed mosquitto
