//! Sizes and offsets that programs are compiled with: a change here breaks them.

use std::mem::{align_of, offset_of, size_of};

use crate::*;

macro_rules! layout {
    ($type:ident, $size:literal, $($member:ident @ $at:literal),+) => {
        #[test]
        fn $type() {
            assert_eq!(size_of::<crate::$type>(), $size);
            assert_eq!(align_of::<crate::$type>(), 8);
            $(assert_eq!(offset_of!(crate::$type, $member), $at, stringify!($member));)+
        }
    };
}

layout!(ottla_completion, 48, tag @ 0, offset @ 8, timestamp_ms @ 16, error @ 24, kind @ 32,
    partition @ 36, first @ 40, count @ 44);
layout!(ottla_header, 32, name @ 0, name_len @ 8, value @ 16, value_len @ 24);
layout!(ottla_record, 64, key @ 0, key_len @ 8, value @ 16, value_len @ 24, headers @ 32,
    header_count @ 40, timestamp_ms @ 48, partition @ 56, flags @ 60);
layout!(ottla_record_view, 56, offset @ 0, timestamp_ms @ 8, key @ 16, key_len @ 24, value @ 32,
    value_len @ 40, header_count @ 48);
layout!(ottla_record_index, 40, offset @ 0, timestamp_ms @ 8, key_at @ 16, key_len @ 20,
    value_at @ 24, value_len @ 28, headers_at @ 32, header_count @ 36);
layout!(ottla_batch_info, 48, topic @ 0, topic_len @ 8, record_count @ 16, arena_len @ 24,
    next_offset @ 32, partition @ 40, leader_epoch @ 44);
layout!(ottla_client_options, 128, size @ 0, bootstrap @ 8, client_id @ 16, software_name @ 24,
    software_version @ 32, connect_timeout_ms @ 40, request_timeout_ms @ 48, tag @ 56,
    rack @ 64, idle_timeout_ms @ 72, ordinal_index @ 80, ordinal_count @ 84,
    on_cluster_change @ 88, reserved @ 92, tls @ 96, sasl @ 104, properties @ 112,
    property_count @ 120);
layout!(ottla_tls_options, 48, size @ 0, ca @ 8, certificate @ 16, key @ 24, server_name @ 32,
    verify @ 40, reserved @ 44);
layout!(ottla_sasl_options, 40, size @ 0, user @ 8, password @ 16, mechanism @ 24,
    delegation_token @ 28, oauth @ 32);
layout!(ottla_oauth_options, 120, size @ 0, token_endpoint @ 8, client_id @ 16, client_secret @ 24,
    client_secret_file @ 32, scope @ 40, ca @ 48, params @ 56, param_count @ 64,
    secret_in_body @ 72, encoded_header @ 76, file @ 80, token @ 88, provider @ 96,
    extensions @ 104, extension_count @ 112);
layout!(ottla_token, 48, size @ 0, token @ 8, expires_at_ms @ 16, expires_in_ms @ 24,
    extensions @ 32, extension_count @ 40);
layout!(ottla_token_request_info, 32, tag @ 0, id @ 8, timeout_ms @ 16, kind @ 24, reserved @ 28);
layout!(ottla_producer_options, 96, size @ 0, linger_ms @ 8, delivery_timeout_ms @ 16,
    batch_size @ 24, buffer_memory @ 32, max_record_size @ 40, compression @ 48,
    compression_level @ 52, tag @ 56, topic_compressions @ 64, topic_compression_count @ 72,
    partitioner @ 80, acks @ 84, in_doubt @ 88, reserved @ 92);
layout!(ottla_topic_compression, 16, topic @ 0, compression @ 8, compression_level @ 12);
layout!(ottla_assignment, 24, topic @ 0, start_value @ 8, partition @ 16, start @ 20);
layout!(ottla_partition, 16, topic @ 0, partition @ 8);
layout!(ottla_partition_offset, 24, topic @ 0, offset @ 8, partition @ 16);
layout!(ottla_consumer_options, 176, size @ 0, topics @ 8, topic_count @ 16, assignments @ 24,
    assignment_count @ 32, start_value @ 40, start @ 48, skip_crc @ 52, max_wait_ms @ 56,
    min_bytes @ 64, max_bytes @ 72, max_partition_bytes @ 80, buffer_memory @ 88, tag @ 96,
    isolation @ 104, reserved @ 108, group @ 112, instance_id @ 120, assignors @ 128,
    session_timeout_ms @ 136, max_poll_interval_ms @ 144, commit_interval_ms @ 152, commit @ 160,
    group_protocol @ 164, remote_assignor @ 168);
layout!(ottla_wanted_words, 24, standing @ 0, reached @ 8, handed_on @ 16);
layout!(ottla_log_info, 48, target @ 0, message @ 8, time_ns @ 16, dropped @ 24, field_count @ 32,
    level @ 40, reserved @ 44);
layout!(ottla_log_field, 16, name @ 0, value @ 8);
layout!(ottla_property, 16, name @ 0, value @ 8);

layout!(ottla_test_broker_options, 80, size @ 0, racks @ 8, rack_count @ 16, brokers @ 24,
    reserved @ 28, users @ 32, user_count @ 40, acls @ 48, acl_count @ 56, mechanisms @ 64,
    tls @ 72, client_certificates @ 76);

#[test]
fn enums_are_ints() {
    assert_eq!(size_of::<ottla_status>(), 4);
    assert_eq!(size_of::<ottla_completion_kind>(), 4);
    assert_eq!(size_of::<ottla_log_level>(), 4);
    assert_eq!(size_of::<ottla_owner>(), 4);
    assert_eq!(size_of::<ottla_token_request_kind>(), 4);
    assert_eq!(size_of::<ottla_standing>(), 4);
    assert_eq!(size_of::<ottla_event_kind>(), 4);
    assert_eq!(size_of::<ottla_group_protocol>(), 4);
}
