//! MQTT 3.1.1 and 5.0 without I/O, clock or async: packets, codec and the session state machine
