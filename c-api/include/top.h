/* Ottla: a Kafka client. Generated from the crate ottla-c; do not edit.
 *
 * The interface in a minute:
 *
 *   - Make an ottla_client, from it an ottla_producer or ottla_consumer.
 *   - Records with equal keys are kept together by OTTLA_PARTITIONER_KEY_HASH alone: by default a key does not
 *     choose the partition.
 *   - Submit records with a tag; what becomes of them is an ottla_completion with that tag, taken
 *     with ottla_poll, in a program's own event loop when ottla_client_fd is readable. The library
 *     never calls back.
 *   - A consumer with a `group` in its options is a member of it; ottla_consumer_leave ends that.
 *   - Programs without an event loop use the calls that wait: ..._wait, ottla_consumer_next, and
 *     ottla_poll with a timeout.
 *   - What the library has to say for a program's own log, a thread takes with ottla_logs_next.
 *   - Tokens that a program gets in its own way (OAUTHBEARER) a thread gives to the requests that it takes
 *     with ottla_token_requests_next.
 *
 * Rules:
 *
 *   - Every call returns an ottla_status. If `error` is not null, *error is set: to null when it
 *     worked, else to an error object, which is yours (ottla_error_free).
 *   - A call with a tag that returns OK leads to completions with that tag; one that fails leads to
 *     none (submissions: for the records that were not accepted).
 *   - What a call gives out through a handle pointer is yours, and freed by the ..._free of its
 *     kind, once, when no other thread uses it. Handles may be freed in any order. Null is allowed
 *     in every ..._free; elsewhere a null handle is OTTLA_STATUS_INVALID_ARGUMENT.
 *   - Handles may be used from many threads at once.
 *   - Strings are NUL-terminated UTF-8 unless they have a length.
 *   - No handle survives a fork: in the child they give OTTLA_STATUS_FORKED.
 *
 * The packed form of records (ottla_producer_send_packed): little-endian, nothing aligned, nothing
 * between the records:
 *
 *   record:  partition i32 (-1: spread) | header_count u32 | timestamp_ms i64 (-1: now)
 *            | key_len i32 (-1: null) | value_len i32 (-1: null) | key | value | headers
 *   header:  name_len u32 | name (UTF-8) | value_len i32 (-1: null) | value
 */
