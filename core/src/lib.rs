//! Ottla: a Kafka client that behaves well.
