"""The only Kafka speaker: topics, identity, wire format, reading and producing."""
