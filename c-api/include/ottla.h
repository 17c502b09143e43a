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

#ifndef OTTLA_H
#define OTTLA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header; ottla_version() is that of the library. */
#define OTTLA_VERSION "0.1.0"
#define OTTLA_VERSION_MAJOR 0
#define OTTLA_VERSION_MINOR 1
#define OTTLA_VERSION_PATCH 0
/* For comparisons by the preprocessor: 0.1.0 is 1000. */
#define OTTLA_VERSION_NUMBER 1000

// `ottla_record.flags`: `partition` is set. Without it the client spreads records.
#define OTTLA_RECORD_PARTITION 1

// `ottla_record.flags`: `timestamp_ms` is set. Without it the record gets the time of the call.
#define OTTLA_RECORD_TIMESTAMP 2

// How a call ended. Anything but `OTTLA_STATUS_OK` comes with an error object, if one was asked
// for. New values may be added: treat those you do not know as failures.
enum ottla_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // It worked.
  OTTLA_STATUS_OK = 0,
  // A setting is missing, misspelt or out of its range.
  OTTLA_STATUS_CONFIG = 1,
  // An argument is not usable: null, not UTF-8, an empty topic name.
  OTTLA_STATUS_INVALID_ARGUMENT = 2,
  // A host name of the bootstrap list could not be resolved.
  OTTLA_STATUS_RESOLVE = 3,
  // Nobody could be reached.
  OTTLA_STATUS_CONNECT = 4,
  // The peer does not speak Kafka's protocol.
  OTTLA_STATUS_NOT_KAFKA = 5,
  // Broker and client share no version of a request that is needed.
  OTTLA_STATUS_UNSUPPORTED_VERSION = 6,
  // A connection was lost with requests in flight.
  OTTLA_STATUS_DISCONNECTED = 7,
  // A deadline passed.
  OTTLA_STATUS_TIMEOUT = 8,
  // No buffer space now: wait for an `OTTLA_COMPLETION_SPACE`, then submit the rest.
  OTTLA_STATUS_BUFFER_FULL = 9,
  // A record is larger than the client or the topic takes.
  OTTLA_STATUS_RECORD_TOO_LARGE = 10,
  // The broker refused the record's content.
  OTTLA_STATUS_INVALID_RECORD = 11,
  // The cluster does not know the topic.
  OTTLA_STATUS_UNKNOWN_TOPIC = 12,
  // The topic has no such partition.
  OTTLA_STATUS_UNKNOWN_PARTITION = 13,
  // The topic to be created exists.
  OTTLA_STATUS_TOPIC_EXISTS = 14,
  // The credentials do not allow this.
  OTTLA_STATUS_AUTHORIZATION = 15,
  // The credentials were refused.
  OTTLA_STATUS_AUTHENTICATION = 16,
  // The producer was fenced, or its state on the broker is lost.
  OTTLA_STATUS_FENCED = 17,
  // The offset is outside what the partition holds.
  OTTLA_STATUS_OFFSET_OUT_OF_RANGE = 18,
  // Fetched bytes are damaged.
  OTTLA_STATUS_CORRUPT = 19,
  // Fetched records use a codec that this build cannot read.
  OTTLA_STATUS_UNSUPPORTED_CODEC = 20,
  // Another error of the broker: see `ottla_error_broker_code`.
  OTTLA_STATUS_BROKER = 21,
  // The handle was used after it, or its client, was closed.
  OTTLA_STATUS_CLOSED = 22,
  // This process is a fork of the one that made the client.
  OTTLA_STATUS_FORKED = 23,
  // A fault of this library.
  OTTLA_STATUS_INTERNAL = 24,
  // The wait was cancelled.
  OTTLA_STATUS_CANCELLED = 25,
  // The system has no thread, descriptor or memory left for this process.
  OTTLA_STATUS_OUT_OF_RESOURCES = 26,
  // Another cluster answers at the addresses now: see `ottla_cluster_change`.
  OTTLA_STATUS_CLUSTER_CHANGED = 27,
  // The log is not the one that was read any more: it was cut back, or its topic was made anew.
  OTTLA_STATUS_TRUNCATED = 28,
  // Records failed whose completions nobody has taken: they are in the queue.
  OTTLA_STATUS_UNDELIVERED = 29,
  // TLS with a broker failed: a certificate that is not trusted, on either side, or a listener
  // without TLS.
  OTTLA_STATUS_TLS = 30,
  // There is nothing to log in with: no token was to be had. No broker has refused anything.
  OTTLA_STATUS_CREDENTIALS = 31,
  // A failure that this version of the interface has no name for.
  OTTLA_STATUS_UNKNOWN = 1000,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_status ottla_status;
#else
typedef int32_t ottla_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whether what is not worked on yet of a batch is still wanted, for those who hand on its records one by one while another
// thread steers the consumer. New values may be added: treat those you do not know as `OTTLA_STANDING_LEFT`.
enum ottla_standing
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // It is wanted.
  OTTLA_STANDING_CURRENT = 0,
  // Its partition is paused: wanted once it is resumed, at the place where it was.
  OTTLA_STANDING_PAUSED = 1,
  // Not wanted any more: the application has gone elsewhere since, by a seek, an assignment anew or its end.
  OTTLA_STANDING_LEFT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_standing ottla_standing;
#else
typedef int32_t ottla_standing;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The event that a completion reports. New values may be added: ignore those you do not know, but free
// their error.
enum ottla_completion_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Records `first` to `first + count - 1` of the submission `tag` are written, or failed.
  OTTLA_COMPLETION_DELIVERY = 1,
  // The client reached a broker, or did not; `tag` from its options.
  OTTLA_COMPLETION_CONNECTED = 2,
  // A flush is done.
  OTTLA_COMPLETION_FLUSHED = 3,
  // A producer is closed, or a consumer has left its group.
  OTTLA_COMPLETION_CLOSED = 4,
  // A consumer that had nothing should be asked again; `tag` from its options.
  OTTLA_COMPLETION_CONSUMER_READY = 5,
  // A topic was created, or was not.
  OTTLA_COMPLETION_TOPIC_CREATED = 6,
  // A producer that had no space has some again; `tag` from its options.
  OTTLA_COMPLETION_SPACE = 7,
  // A lookup of offsets is done.
  OTTLA_COMPLETION_OFFSETS_LISTED = 8,
  // A commit of a consumer's group is done.
  OTTLA_COMPLETION_COMMITTED = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_completion_kind ottla_completion_kind;
#else
typedef int32_t ottla_completion_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where reading starts. In a partition of `topics` that is found after the consumer was made (the topic
// grew, or was made then) it starts with the first record, whatever is set: all of it is new.
enum ottla_start
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Earliest.
  OTTLA_START_DEFAULT = 0,
  // At the oldest record that is kept.
  OTTLA_START_EARLIEST = 1,
  // With what is written from now on.
  OTTLA_START_LATEST = 2,
  // At the offset `start_value`, 0 or more.
  OTTLA_START_OFFSET = 3,
  // At the first record that is as young as `start_value`, in ms since 1970 (0 or more), or younger.
  OTTLA_START_TIMESTAMP = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_start ottla_start;
#else
typedef int32_t ottla_start;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which records of transactions are read.
enum ottla_isolation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // All.
  OTTLA_ISOLATION_DEFAULT = 0,
  // All that was written, also in transactions that were aborted or are still open.
  OTTLA_ISOLATION_READ_UNCOMMITTED = 1,
  // Nothing of transactions that were aborted, and nothing beyond the first one that is still open: that is
  // the partition's end, for `ottla_consumer_lag` and `OTTLA_START_LATEST`, too.
  OTTLA_ISOLATION_READ_COMMITTED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_isolation ottla_isolation;
#else
typedef int32_t ottla_isolation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// When what a group's consumer has handed out counts as done, and what of it is committed.
enum ottla_commit
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_COMMIT_MARKS`.
  OTTLA_COMMIT_DEFAULT = 0,
  // A batch is done once the next is asked for, whichever thread asks: one thread reads. What is done is committed each
  // `commit_interval_ms`, when partitions are given up, and when the consumer is closed. The batch in hand is not done; of
  // one whose records are worked on one by one `ottla_batch_reached` says how far it is.
  OTTLA_COMMIT_MARKS = 1,
  // A batch is done once the program says so, in any order: `ottla_batch_ack` or `ottla_batch_ack_before`. What is committed
  // of a partition is the end of what is done without a gap. For programs with many threads.
  OTTLA_COMMIT_ACKED = 2,
  // As with `OTTLA_COMMIT_MARKS`, but nothing is committed except by `ottla_consumer_commit` and its like.
  OTTLA_COMMIT_MANUAL = 3,
  // As with `OTTLA_COMMIT_ACKED`, but nothing is committed except by `ottla_consumer_commit` and its like.
  OTTLA_COMMIT_MANUAL_ACKED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_commit ottla_commit;
#else
typedef int32_t ottla_commit;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which of Kafka's two protocols of groups a member speaks.
enum ottla_group_protocol
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The next generation where the cluster has it (Kafka 4.0 or newer), unless the group has classic members now, or
  // `assignors` or `session_timeout_ms` are set, which only the classic protocol has.
  OTTLA_GROUP_PROTOCOL_AUTO = 0,
  // That of every broker: one of the members assigns.
  OTTLA_GROUP_PROTOCOL_CLASSIC = 1,
  // KIP-848: the coordinator assigns. Joining so converts a classic group for all of its members where the brokers allow it.
  OTTLA_GROUP_PROTOCOL_NEXT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_group_protocol ottla_group_protocol;
#else
typedef int32_t ottla_group_protocol;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the group says to its member.
enum ottla_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Partitions have come, besides those that were there. None of them: the group was decided anew, and nothing came.
  OTTLA_EVENT_ASSIGNED = 1,
  // The group takes partitions away, of which nothing more is handed out. What is done of them when the next is asked for is
  // committed, and then they are given up; at the deadline at the latest.
  OTTLA_EVENT_GIVING_UP = 2,
  // Partitions are somebody else's by now, perhaps: the membership was lost. What was not committed of them is read by others
  // again.
  OTTLA_EVENT_LOST = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_event_kind ottla_event_kind;
#else
typedef int32_t ottla_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where a group of a cluster for tests is.
enum ottla_test_group_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Nobody has joined or committed.
  OTTLA_TEST_GROUP_NONE = 0,
  // It has no members.
  OTTLA_TEST_GROUP_EMPTY = 1,
  // Its members are changing.
  OTTLA_TEST_GROUP_REBALANCING = 2,
  // All have what they are to have.
  OTTLA_TEST_GROUP_STABLE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_test_group_state ottla_test_group_state;
#else
typedef int32_t ottla_test_group_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Codecs. Records that do not get smaller are sent as they are.
enum ottla_compression
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // lz4.
  OTTLA_COMPRESSION_DEFAULT = 0,
  // Not compressed.
  OTTLA_COMPRESSION_NONE = 1,
  // lz4: little CPU.
  OTTLA_COMPRESSION_LZ4 = 2,
  // gzip: small and slow, read by everything. Has levels.
  OTTLA_COMPRESSION_GZIP = 3,
  // Snappy: about as quick as lz4 and as small.
  OTTLA_COMPRESSION_SNAPPY = 4,
  // Zstandard: smaller than gzip at a fraction of its CPU. Has levels.
  OTTLA_COMPRESSION_ZSTD = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_compression ottla_compression;
#else
typedef int32_t ottla_compression;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a record that names no partition gets one.
enum ottla_partitioner
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_PARTITIONER_SPREAD`.
  OTTLA_PARTITIONER_DEFAULT = 0,
  // By load: wherever a broker answers quickly, a batch at a time. Keys are payload.
  OTTLA_PARTITIONER_SPREAD = 1,
  // By key (murmur2), as Java's client does: records with the same key go to the same partition,
  // in order, for as long as the topic keeps its number of partitions. Such records wait for the
  // leader of their partition and share its fate; records without a key are spread.
  OTTLA_PARTITIONER_KEY_HASH = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_partitioner ottla_partitioner;
#else
typedef int32_t ottla_partitioner;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Who must have a record before it counts as acknowledged. Not Kafka's numbers.
enum ottla_acks
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_ACKS_ALL`.
  OTTLA_ACKS_DEFAULT = 0,
  // All in-sync replicas. Idempotent: what is sent again is written once.
  OTTLA_ACKS_ALL = 1,
  // The leader alone: lost if it dies before a follower has the record. Not idempotent: a batch
  // whose answer is lost is sent again and may be written twice.
  OTTLA_ACKS_LEADER = 2,
  // Nobody: a record counts as written, at offset -1, once it is handed to the socket. What the
  // broker refuses or loses is lost silently.
  OTTLA_ACKS_NONE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_acks ottla_acks;
#else
typedef int32_t ottla_acks;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where a batch whose records named no partition goes once it is in doubt: its connection
// was cut before the answer, or its broker is silent while others answer.
enum ottla_in_doubt
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_IN_DOUBT_WAIT`.
  OTTLA_IN_DOUBT_DEFAULT = 0,
  // It waits for its partition and is sent again there, where the broker recognises what it has:
  // no duplicate, and the acknowledgement comes as late as the broker does.
  OTTLA_IN_DOUBT_WAIT = 1,
  // It goes to another partition at once: acknowledged soon, and perhaps written twice. Records
  // with a partition of their own wait all the same.
  OTTLA_IN_DOUBT_REROUTE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_in_doubt ottla_in_doubt;
#else
typedef int32_t ottla_in_doubt;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whether a client fails or goes on once another cluster, with another id, answers at its addresses.
enum ottla_cluster_change
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_CLUSTER_CHANGE_FAIL`.
  OTTLA_CLUSTER_CHANGE_DEFAULT = 0,
  // Nothing more: all ends with `OTTLA_STATUS_CLUSTER_CHANGED`, which names both clusters.
  OTTLA_CLUSTER_CHANGE_FAIL = 1,
  // It goes on with the new one. Records that may be in the old cluster's log fail as perhaps
  // written, what was never sent goes to the new one; consumers begin there by their start.
  OTTLA_CLUSTER_CHANGE_ACCEPT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_cluster_change ottla_cluster_change;
#else
typedef int32_t ottla_cluster_change;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How much of a broker's certificate is checked.
enum ottla_verify
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_VERIFY_FULL`.
  OTTLA_VERIFY_DEFAULT = 0,
  // That it leads to a trusted CA, and that it is for the name or address that was dialled.
  OTTLA_VERIFY_FULL = 1,
  // That it leads to a trusted CA. Whoever has any certificate of that CA can pass for any broker.
  OTTLA_VERIFY_CHAIN = 2,
  // Nothing: anybody on the way can read and change everything, passwords among it. Logged as a warning.
  OTTLA_VERIFY_NONE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_verify ottla_verify;
#else
typedef int32_t ottla_verify;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// SASL mechanisms.
enum ottla_sasl_mechanism
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // PLAIN: name and password as they are. Use it with TLS: without, who listens has the password.
  OTTLA_SASL_PLAIN = 1,
  // SCRAM-SHA-256: the password does not cross the network, and the broker has to show that it knows it.
  OTTLA_SASL_SCRAM_SHA_256 = 2,
  // SCRAM-SHA-512: the same, with the longer hash.
  OTTLA_SASL_SCRAM_SHA_512 = 3,
  // OAUTHBEARER: a token, from where `oauth` says. Use it with TLS: without, who listens has the token.
  OTTLA_SASL_OAUTHBEARER = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_sasl_mechanism ottla_sasl_mechanism;
#else
typedef int32_t ottla_sasl_mechanism;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a token provider wants.
enum ottla_token_request_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // A token: `ottla_token_request_give` or `ottla_token_request_fail`.
  OTTLA_TOKEN_WANTED = 1,
  // Nobody waits any more for the answer to the request of this id: it took too long, or who wanted it is gone. Work on
  // it may end. The provider is asked again only once that request is answered or freed.
  OTTLA_TOKEN_GIVEN_UP = 2,
  // The provider was freed, and nobody uses it any more: it asks no more.
  OTTLA_TOKEN_RELEASED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_token_request_kind ottla_token_request_kind;
#else
typedef int32_t ottla_token_request_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How important a line of the log is.
enum ottla_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `OTTLA_LOG_WARN`.
  OTTLA_LOG_DEFAULT = 0,
  // Something is broken and stays so.
  OTTLA_LOG_ERROR = 1,
  // Something is wrong: a broker that cannot be reached, records that are lost. Told once while
  // it lasts.
  OTTLA_LOG_WARN = 2,
  // Worth knowing, but no trouble: a connection was lost.
  OTTLA_LOG_INFO = 3,
  // Details that help to find a fault.
  OTTLA_LOG_DEBUG = 4,
  // Every batch.
  OTTLA_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_log_level ottla_log_level;
#else
typedef int32_t ottla_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Whose settings are read.
enum ottla_owner
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // A client's.
  OTTLA_OWNER_CLIENT = 1,
  // A producer's.
  OTTLA_OWNER_PRODUCER = 2,
  // A consumer's.
  OTTLA_OWNER_CONSUMER = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ottla_owner ottla_owner;
#else
typedef int32_t ottla_owner;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Records of one partition in offset order. Depends on no other handle; readable from many
// threads at once.
typedef struct ottla_batch ottla_batch;

// A client: one queue of completions and whatever fills it. Clients of one cluster share their
// connections.
typedef struct ottla_client ottla_client;

// A consumer of topics or partitions. Calls that read, from several threads, follow one another; what asks and steers
// waits for none of them.
typedef struct ottla_consumer ottla_consumer;

// Why something failed. Owned by whoever received it, freed with `ottla_error_free`; it does not
// depend on any other handle.
typedef struct ottla_error ottla_error;

// Something that the group says between two batches. Depends on no other handle.
typedef struct ottla_event ottla_event;

// One line. Depends on no other handle.
typedef struct ottla_log ottla_log;

// The lines that this process has to say, for a thread that takes them one by one. A program may
// open several (16 at most); it needs no client for it.
typedef struct ottla_logs ottla_logs;

// The results of a lookup. Depends on no other handle.
typedef struct ottla_offsets ottla_offsets;

// Partitions that a call gives out. Depends on no other handle.
typedef struct ottla_partitions ottla_partitions;

// A producer. Usable from many threads at once.
typedef struct ottla_producer ottla_producer;

// A Kafka cluster inside this process, for tests: real protocol on ports of 127.0.0.1, records in
// memory, gone when freed. Its calls answer `OTTLA_STATUS_INVALID_ARGUMENT` for brokers, topics and
// partitions that it does not have.
typedef struct ottla_test_broker ottla_test_broker;

// Where a program's own tokens come from. Clients that have the same one share their connections.
typedef struct ottla_token_provider ottla_token_provider;

// Something that a provider wants. Depends on no other handle.
typedef struct ottla_token_request ottla_token_request;

// What token providers want, for a thread that takes it out. A program needs one, for all of its providers.
typedef struct ottla_token_requests ottla_token_requests;

// What tells whether a batch is still wanted when the batch itself is freed: for programs that copy its records out. Depends
// on no other handle, and holds no records.
typedef struct ottla_wanted ottla_wanted;

// Memory that programs in other languages share with the library where a call for each record is too much. It lives as long as
// the `ottla_wanted`. Both are accessed atomically.
typedef struct ottla_wanted_words {
  // To be read: 0 while the batch is wanted, 1 while it is paused, more once it is left.
  const uint32_t *standing;
  // To be written: the offset that `ottla_batch_reached` would be told. Null without a group.
  int64_t *reached;
  // To be written: the offset of the record that the program is given now, where that says nothing of those before it. It shows
  // the group that the program is there. Null without a group.
  int64_t *handed_on;
} ottla_wanted_words;

// The facts about a batch.
typedef struct ottla_batch_info {
  // The topic, NUL-terminated. Lives as long as the batch.
  const char *topic;
  // Bytes of the topic.
  size_t topic_len;
  // How many records.
  size_t record_count;
  // Bytes that `ottla_batch_export` needs, at most.
  size_t arena_len;
  // The offset to go on from after this batch.
  int64_t next_offset;
  // The partition.
  int32_t partition;
  // The leader epoch under which it was written; -1: unknown.
  int32_t leader_epoch;
} ottla_batch_info;

// A record of a batch. The pointers live as long as the batch.
typedef struct ottla_record_view {
  // Its offset in the partition.
  int64_t offset;
  // Milliseconds since 1970; -1: none.
  int64_t timestamp_ms;
  // The key; null is null.
  const uint8_t *key;
  // Bytes of the key.
  size_t key_len;
  // The value; null is null.
  const uint8_t *value;
  // Bytes of the value.
  size_t value_len;
  // How many headers: `ottla_batch_headers`.
  size_t header_count;
} ottla_record_view;

// A header of a record. `name` need not end in NUL, and is UTF-8 in records to send; in records
// read it is whatever bytes were written. A null `value` is null, an empty one points somewhere
// and has length 0.
typedef struct ottla_header {
  // The name.
  const char *name;
  // Bytes of the name.
  size_t name_len;
  // The value.
  const uint8_t *value;
  // Bytes of the value.
  size_t value_len;
} ottla_header;

// A record in the arena that `ottla_batch_export` fills: places and lengths in bytes.
typedef struct ottla_record_index {
  // Its offset in the partition.
  int64_t offset;
  // Milliseconds since 1970; -1: none.
  int64_t timestamp_ms;
  // Where the key starts in the arena.
  uint32_t key_at;
  // Bytes of the key; -1: null.
  int32_t key_len;
  // Where the value starts.
  uint32_t value_at;
  // Bytes of the value; -1: null.
  int32_t value_len;
  // Where the headers start: for each name_len u32, name, value_len i32 (-1: null), value, all
  // little-endian, nothing between them.
  uint32_t headers_at;
  // How many headers.
  uint32_t header_count;
} ottla_record_index;

// How brokers are reached by TLS (1.2 or 1.3): start from `OTTLA_TLS_OPTIONS_INIT`. Null and 0 are always the
// default.
//
// Certificates and keys are PEM: the path of a file, or the text itself (with its -----BEGIN line). Files are read
// when a client is made, and looked at again before a connection is made, at most every 10 s: certificates can be
// renewed while a program runs. What is not good is `OTTLA_STATUS_CONFIG`, what a broker shows and is not trusted
// `OTTLA_STATUS_TLS`.
typedef struct ottla_tls_options {
  // Set by the macro.
  size_t size;
  // Trusts the CAs in it, and no others. Default: those that the system trusts.
  const char *ca;
  // The certificate (and those between it and its CA) by which brokers know this client; needs `key`, and may be
  // in one file with it: name it twice.
  const char *certificate;
  // The private key of `certificate`, not encrypted.
  const char *key;
  // The name that certificates must have, at every broker. Default: the host or address that was dialled.
  const char *server_name;
  // One of `ottla_verify`.
  int32_t verify;
  // 0: anything else is refused.
  int32_t reserved;
} ottla_tls_options;

// A setting as Java's client and librdkafka have it: "linger.ms", "20".
typedef struct ottla_property {
  // The name.
  const char *name;
  // The value.
  const char *value;
} ottla_property;

// A token: start from `OTTLA_TOKEN_INIT`, then set `token`. The library has a copy of its own, which it overwrites
// before it frees it.
typedef struct ottla_token {
  // Set by the macro.
  size_t size;
  // The token itself, printable ASCII. It is shown nowhere.
  const char *token;
  // When it ends, in ms since 1970. Default 0: `expires_in_ms`, else as it says itself, if it is a JWT, else never.
  int64_t expires_at_ms;
  // In how many ms it ends from now on. Default 0: as `expires_at_ms` says.
  int64_t expires_in_ms;
  // SASL extensions that brokers are to have with it (KIP-342), `extension_count` of them.
  const struct ottla_property *extensions;
  // See `extensions`.
  size_t extension_count;
} ottla_token;

// Where the tokens of OAUTHBEARER come from: start from `OTTLA_OAUTH_OPTIONS_INIT`, then set one of `token_endpoint`, `file`,
// `token` and `provider`. One token is used for all connections, and another one is got before it ends. No token to be
// had is `OTTLA_STATUS_CREDENTIALS`, with the words of where it should have come from.
typedef struct ottla_oauth_options {
  // Set by the macro.
  size_t size;
  // The URL of a token endpoint, which gives tokens for the client's own id and secret (the grant `client_credentials` of RFC 6749). It
  // is reached without a proxy, and redirects are refused.
  const char *token_endpoint;
  // The client's id there.
  const char *client_id;
  // Its secret: this or `client_secret_file`.
  const char *client_secret;
  // The path of a file that has its secret, which is read for each token.
  const char *client_secret_file;
  // What tokens are to be good for; several are separated by spaces. Default: as the endpoint has it.
  const char *scope;
  // Trusts the CAs in it at the endpoint, and no others: PEM as in `ottla_tls_options`, which do not count here. Default:
  // those that the system trusts.
  const char *ca;
  // More fields of the request, such as `audience`; `param_count` of them.
  const struct ottla_property *params;
  // See `params`.
  size_t param_count;
  // Other than 0: id and secret are sent in the body, not in the header `Authorization`.
  int32_t secret_in_body;
  // Other than 0: id and secret are percent-encoded in the header, as RFC 6749 has it.
  int32_t encoded_header;
  // The path of a file that has a token, and is read again before a login, at most every 10 s.
  const char *file;
  // A token that there is.
  const struct ottla_token *token;
  // The program's own code, by `ottla_token_provider_new`.
  const struct ottla_token_provider *provider;
  // SASL extensions that brokers are to have with each token (KIP-342), `extension_count` of them.
  const struct ottla_property *extensions;
  // See `extensions`.
  size_t extension_count;
} ottla_oauth_options;

// How a client logs in: start from `OTTLA_SASL_OPTIONS_INIT`, then set `mechanism`, `user` and `password`. The
// library has copies of its own, which it overwrites before it frees them; yours may be overwritten as soon as the
// client is made. A password that a broker refuses is `OTTLA_STATUS_AUTHENTICATION`, with the broker's words.
typedef struct ottla_sasl_options {
  // Set by the macro.
  size_t size;
  // The user's name; with SCRAM printable ASCII.
  const char *user;
  // The password. It is shown nowhere.
  const char *password;
  // One of `ottla_sasl_mechanism`; there is no default.
  int32_t mechanism;
  // Other than 0: `user` and `password` are the id and the HMAC of a delegation token (SCRAM alone).
  int32_t delegation_token;
  // Where tokens come from (`OTTLA_SASL_OAUTHBEARER` alone, which has neither user nor password).
  const struct ottla_oauth_options *oauth;
} ottla_sasl_options;

// Settings of a client: start from `OTTLA_CLIENT_OPTIONS_INIT`, then set `bootstrap`. Null and 0
// are always the default. A value out of its range is `OTTLA_STATUS_CONFIG`.
typedef struct ottla_client_options {
  // Set by the macro.
  size_t size;
  // "host:port,host:port"; null: what `properties` say.
  const char *bootstrap;
  // The client's name in the brokers' logs and quotas. Default "ottla".
  const char *client_id;
  // Name of the software, as brokers count it. Default "ottla-c".
  const char *software_name;
  // Version of the software. Default: the library's.
  const char *software_version;
  // How long to try to reach a broker, in ms. 1 to 3,600,000 (an hour), default 10,000.
  int64_t connect_timeout_ms;
  // How long a broker may take to answer, in ms. 100 to 3,600,000, default 30,000.
  int64_t request_timeout_ms;
  // The tag of the `OTTLA_COMPLETION_CONNECTED`.
  uint64_t tag;
  // The rack (availability zone) this process runs in, by the name brokers have in `broker.rack`:
  // a client that does not need all brokers then uses those of its own rack first. Default:
  // none, then it takes its brokers from all racks alike.
  const char *rack;
  // A connection that nothing was asked on for so long is closed, up to a fifth sooner, in ms.
  // 1,000 to 86,400,000 (a day), default 540,000: brokers close theirs after 600,000.
  int64_t idle_timeout_ms;
  // This process's number among `ordinal_count` equal ones, from 0 (a StatefulSet's ordinal):
  // which brokers each uses is then shared out exactly instead of by chance.
  uint32_t ordinal_index;
  // How many there are. Default 0: not known, by chance.
  uint32_t ordinal_count;
  // One of `ottla_cluster_change`.
  int32_t on_cluster_change;
  // 0: anything else is refused.
  uint32_t reserved;
  // How brokers are reached by TLS. Null: as `properties` say, else in plaintext.
  const struct ottla_tls_options *tls;
  // How the client logs in. Null: as `properties` say, else not at all.
  const struct ottla_sasl_options *sasl;
  // Settings by the names that Java's client and librdkafka have for them, TLS and SASL among them
  // (`security.protocol`, `ssl.*`, `sasl.*`); `property_count` of them. What is given above too goes before
  // them, those of producers and consumers are passed over, and what is not taken is `OTTLA_STATUS_CONFIG`.
  const struct ottla_property *properties;
  // See `properties`.
  size_t property_count;
} ottla_client_options;

// One thing that finished.
typedef struct ottla_completion {
  // Of the submission, the operation or the handle.
  uint64_t tag;
  // Delivery: offset of record `first`; record `first + k` has `offset + k`. -1: unknown.
  int64_t offset;
  // Delivery: timestamp of record `first`, ms since 1970. -1: unknown.
  int64_t timestamp_ms;
  // Null: success. Else yours: free it with `ottla_error_free`.
  struct ottla_error *error;
  // One of `ottla_completion_kind`.
  int32_t kind;
  // Delivery: the partition. -1: unknown.
  int32_t partition;
  // Delivery: index in the submission of the run's first record.
  uint32_t first;
  // Delivery: records in the run.
  uint32_t count;
} ottla_completion;

// A partition to read.
typedef struct ottla_assignment {
  // The topic.
  const char *topic;
  // See `ottla_start`.
  int64_t start_value;
  // The partition.
  int32_t partition;
  // One of `ottla_start`.
  int32_t start;
} ottla_assignment;

// Settings of a consumer: start from `OTTLA_CONSUMER_OPTIONS_INIT`, then set `topics` or
// `assignments`. 0 is always the default.
typedef struct ottla_consumer_options {
  // Set by the macro.
  size_t size;
  // Topics to read with all their partitions, `topic_count` of them. With `group`, a name that begins with `^` is a pattern (RE2)
  // of whole names: `^orders-.*`.
  const char *const *topics;
  // See `topics`.
  size_t topic_count;
  // Or partitions to read, `assignment_count` of them.
  const struct ottla_assignment *assignments;
  // See `assignments`.
  size_t assignment_count;
  // For `topics`: see `ottla_start`.
  int64_t start_value;
  // For `topics`: one of `ottla_start`.
  int32_t start;
  // 1: checksums of batches are not verified.
  int32_t skip_crc;
  // How long a broker may wait for `min_bytes`, in ms. Default 500; -1: not at all.
  int64_t max_wait_ms;
  // The bytes that a broker waits for before it answers. Default 1.
  size_t min_bytes;
  // Bytes of one answer. Default 8 MiB.
  size_t max_bytes;
  // Bytes of one partition in an answer. Default 1 MiB.
  size_t max_partition_bytes;
  // Bytes fetched and not taken yet. Default 64 MiB.
  size_t buffer_memory;
  // The tag of this consumer's `OTTLA_COMPLETION_CONSUMER_READY`.
  uint64_t tag;
  // Which records of transactions are read: one of `ottla_isolation`. Default: all.
  int32_t isolation;
  // 0.
  int32_t reserved;
  // The group that it reads `topics` together with: each partition is one member's at a time, and read on where the group was
  // (where it never was, at `start`). It becomes a member when it is asked for the first batch. Default: none.
  const char *group;
  // Makes it a static member (KIP-345): one that restarts within the session timeout under the same id has its partitions
  // again, and the others notice nothing; it does not leave when it is closed. Each running consumer has its own.
  const char *instance_id;
  // Of the classic protocol: who may decide which member reads what, the preferred first, separated by commas: "range", "roundrobin", "sticky",
  // "cooperative-sticky". Default "range,cooperative-sticky", as Java's client has it.
  const char *assignors;
  // After how long without a heartbeat the group gives the member's partitions to others, in ms. 1,000 to 86,400,000 (a
  // day) within what the brokers allow, default 45,000. Heartbeats go out by themselves.
  // Of the classic protocol: under the next generation the brokers decide.
  int64_t session_timeout_ms;
  // How long the program may take between being given a batch and asking for the next, in ms; after that the member leaves,
  // and joins again when it asks again. 1,000 to 86,400,000, default 300,000.
  int64_t max_poll_interval_ms;
  // How often what is done is committed, in ms, +-20 %. 10 to 86,400,000, default 5,000.
  int64_t commit_interval_ms;
  // When what was handed out counts as done: one of `ottla_commit`.
  int32_t commit;
  // Which of Kafka's two protocols of groups it speaks: one of `ottla_group_protocol`.
  int32_t group_protocol;
  // Under the next generation of the protocol: which assignor of the brokers assigns, "uniform" or "range" or one that
  // they were given. Default: their first.
  const char *remote_assignor;
} ottla_consumer_options;

// A partition, and an offset in it.
typedef struct ottla_partition_offset {
  // The topic.
  const char *topic;
  // The offset.
  int64_t offset;
  // The partition.
  int32_t partition;
} ottla_partition_offset;

// The parts of a log line. The pointers live as long as the line.
typedef struct ottla_log_info {
  // Who says it: "ottla::net", "ottla::cluster", "ottla::producer", "ottla::consumer".
  const char *target;
  // The text, without its fields.
  const char *message;
  // When it was said, in ns since 1970.
  int64_t time_ns;
  // Lines lost between the one before and this one, because nobody took them.
  uint64_t dropped;
  // How many fields: `ottla_log_fields`.
  size_t field_count;
  // One of `ottla_log_level`.
  int32_t level;
  // 0.
  int32_t reserved;
} ottla_log_info;

// A field of a line. The pointers live as long as the line.
typedef struct ottla_log_field {
  // The name: "broker".
  const char *name;
  // The value as text: "3".
  const char *value;
} ottla_log_field;

// The codec of one topic.
typedef struct ottla_topic_compression {
  // The topic.
  const char *topic;
  // One of `ottla_compression`.
  int32_t compression;
  // As in `ottla_producer_options`.
  int32_t compression_level;
} ottla_topic_compression;

// Settings of a producer: start from `OTTLA_PRODUCER_OPTIONS_INIT`. 0 is always the default. A value
// out of its range is `OTTLA_STATUS_CONFIG`, a number that is no member of its enum
// `OTTLA_STATUS_INVALID_ARGUMENT`. Sending never waits for space, so that there is no time to
// bound that by.
typedef struct ottla_producer_options {
  // Set by the macro.
  size_t size;
  // How long a record may wait for company, in ms. To 60,000, default 5. None waits while its broker is idle
  // and this process makes fewer than 180 requests a second. -1: none ever does, which costs brokers a
  // request for nearly every record, as a flush after each record does.
  int64_t linger_ms;
  // From acceptance to outcome, in ms. 10 to 86,400,000 (a day), default 120,000.
  int64_t delivery_timeout_ms;
  // Bytes of a batch. 1 KiB to 16 MiB, default 256 KiB.
  size_t batch_size;
  // Bytes of records that are not resolved yet. 1 MiB to 1 TiB, default 64 MiB.
  size_t buffer_memory;
  // Bytes of one record. To 100 MiB, default 1 MiB.
  size_t max_record_size;
  // One of `ottla_compression`.
  int32_t compression;
  // How hard `compression` tries, where it has levels: gzip 1 (quick) to 9 (small), zstd -7 to
  // 22. 0: the codec's usual level (6 and 3).
  int32_t compression_level;
  // The tag of this producer's `OTTLA_COMPLETION_SPACE`.
  uint64_t tag;
  // Topics with another codec than `compression`, `topic_compression_count` of them.
  const struct ottla_topic_compression *topic_compressions;
  // See `topic_compressions`.
  size_t topic_compression_count;
  // One of `ottla_partitioner`.
  int32_t partitioner;
  // One of `ottla_acks`.
  int32_t acks;
  // One of `ottla_in_doubt`.
  int32_t in_doubt;
  // 0: anything else is refused.
  int32_t reserved;
} ottla_producer_options;

// A record to send. All zero is a record with null key and null value, without headers, spread,
// stamped with the time of the call. A null pointer is null, an empty key or value points
// somewhere and has length 0. Nothing of it is used after the call.
typedef struct ottla_record {
  // The key.
  const uint8_t *key;
  // Bytes of the key.
  size_t key_len;
  // The value.
  const uint8_t *value;
  // Bytes of the value.
  size_t value_len;
  // The headers, in order.
  const struct ottla_header *headers;
  // How many headers.
  size_t header_count;
  // Milliseconds since 1970, with `OTTLA_RECORD_TIMESTAMP`.
  int64_t timestamp_ms;
  // The partition, with `OTTLA_RECORD_PARTITION`.
  int32_t partition;
  // `OTTLA_RECORD_...`, or-ed.
  uint32_t flags;
} ottla_record;

// A partition of a topic.
typedef struct ottla_partition {
  // The topic.
  const char *topic;
  // The partition.
  int32_t partition;
} ottla_partition;

// Settings of a cluster for tests: start from `OTTLA_TEST_BROKER_OPTIONS_INIT`. Null and 0 are
// always the default.
typedef struct ottla_test_broker_options {
  // Set by the macro.
  size_t size;
  // Racks (`broker.rack`), given to the brokers in turn, `rack_count` of them. Default: none.
  const char *const *racks;
  // See `racks`.
  size_t rack_count;
  // How many brokers; their ids are 1 to n. 1 to 1000, default 1.
  int32_t brokers;
  // 0: anything else is refused.
  int32_t reserved;
  // Users who log in by PLAIN or SCRAM: names and passwords, `user_count` of them. With any, clients have to.
  const struct ottla_property *users;
  // See `users`.
  size_t user_count;
  // Principals (users; "*": everybody) and what each may do: "write orders", "read log-*", "everything";
  // `acl_count` of them. With any, nobody may do anything else.
  const struct ottla_property *acls;
  // See `acls`.
  size_t acl_count;
  // The mechanisms that are taken, "PLAIN,SCRAM-SHA-256". Default: PLAIN, and SCRAM with both hashes.
  const char *mechanisms;
  // Other than 0: brokers speak TLS, and `ottla_test_broker_ca` is what clients are to trust.
  int32_t tls;
  // Other than 0: nobody is served without a certificate, as `ottla_test_broker_client_identity` makes them.
  int32_t client_certificates;
} ottla_test_broker_options;

// The parts of a request.
typedef struct ottla_token_request_info {
  // The provider's.
  uint64_t tag;
  // The number of the request, never 0; 0 for `OTTLA_TOKEN_RELEASED`.
  uint64_t id;
  // How long it is waited for from now on, in ms; 0 if nobody waits any more.
  int64_t timeout_ms;
  // One of `ottla_token_request_kind`.
  int32_t kind;
  // 0.
  int32_t reserved;
} ottla_token_request_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The batch is done: what a group's consumer commits of its partition may lie behind it, once all before it is done too. Does
// nothing without a group, and once the partition is somebody else's. With `OTTLA_COMMIT_MARKS` asking for the next batch
// does it.
ottla_status ottla_batch_ack(const struct ottla_batch *batch,
                             struct ottla_error **error);

// The same for the records of the batch before an offset.
ottla_status ottla_batch_ack_before(const struct ottla_batch *batch,
                                    int64_t offset,
                                    struct ottla_error **error);

// The program has the record at this offset of the batch in hand: those before it are done. For one thread that works on the
// records of a partition one by one, with `OTTLA_COMMIT_MARKS`: what is committed is then as exact. Costs next to nothing. Null
// is ignored.
void ottla_batch_reached(const struct ottla_batch *batch,
                         int64_t offset);

// `ottla_batch_ack_before` when the batch itself is freed; `INT64_MAX` for all of it.
ottla_status ottla_wanted_ack_before(const struct ottla_wanted *wanted,
                                     int64_t offset,
                                     struct ottla_error **error);

// Nobody has the records of the batch from an offset on in hand (`aside` is 1), or somebody has again (0): for programs that work on
// the records of a batch one by one, and keep the rest while the partition is paused. When the group takes the partition away that rest
// is not waited for. The records before are waited for until they are done.
ottla_status ottla_wanted_put_aside(const struct ottla_wanted *wanted,
                                    int64_t offset,
                                    int32_t aside,
                                    struct ottla_error **error);

// The memory that is shared with the library.
ottla_status ottla_wanted_share(const struct ottla_wanted *wanted,
                                struct ottla_wanted_words *shared,
                                struct ottla_error **error);

// Tells what the batch is.
ottla_status ottla_batch_describe(const struct ottla_batch *batch,
                                  struct ottla_batch_info *info,
                                  struct ottla_error **error);

// A copy of a batch in memory of its own: `*detached` is yours, freed with `ottla_batch_free` as the batch itself. A batch holds the whole
// response that it came in, and with it room that the consumer has not (`buffer_memory` of its options); a program that keeps batches keeps
// detached ones. What of the group's is done can be said of either.
ottla_status ottla_batch_detach(const struct ottla_batch *batch,
                                struct ottla_batch **detached,
                                struct ottla_error **error);

// How many records the batch has; 0 for null.
size_t ottla_batch_len(const struct ottla_batch *batch);

// Whether the batch is still wanted. A close changes nothing of it. `OTTLA_STANDING_LEFT` for null.
ottla_standing ottla_batch_standing(const struct ottla_batch *batch);

// The `ottla_wanted` of a batch: `*wanted` is yours, freed with `ottla_wanted_free`.
ottla_status ottla_batch_wanted(const struct ottla_batch *batch,
                                struct ottla_wanted **wanted,
                                struct ottla_error **error);

// What `ottla_batch_standing` would tell of the batch. `OTTLA_STANDING_LEFT` for null.
ottla_standing ottla_wanted_standing(const struct ottla_wanted *wanted);

// Frees it. Null is allowed.
void ottla_wanted_free(struct ottla_wanted *wanted);

// Record number `i` of the batch, from 0.
ottla_status ottla_batch_record(const struct ottla_batch *batch,
                                size_t i,
                                struct ottla_record_view *record,
                                struct ottla_error **error);

// Up to `max` records in one call, from number `first` on, counted from 0: the quickest way through a batch. `*count` is how many
// there were: fewer than `max` at the batch's end.
ottla_status ottla_batch_records(const struct ottla_batch *batch,
                                 size_t first,
                                 struct ottla_record_view *records,
                                 size_t max,
                                 size_t *count,
                                 struct ottla_error **error);

// Writes the first `max` headers of record number `i` to `headers` and their number to `*count`.
// The pointers live as long as the batch.
ottla_status ottla_batch_headers(const struct ottla_batch *batch,
                                 size_t i,
                                 struct ottla_header *headers,
                                 size_t max,
                                 size_t *count,
                                 struct ottla_error **error);

// Copies the whole batch in one call: keys, values and headers into `arena`, their places into
// `index`. Both must be as large as `ottla_batch_describe` says. What else there is in `arena` means nothing.
ottla_status ottla_batch_export(const struct ottla_batch *batch,
                                uint8_t *arena,
                                size_t arena_len,
                                struct ottla_record_index *index,
                                size_t index_len,
                                struct ottla_error **error);

// Frees a batch and with it all it lent. Null is allowed.
void ottla_batch_free(struct ottla_batch *batch);

// Makes a client and returns at once: an `OTTLA_COMPLETION_CONNECTED` tells whether a broker was
// reached. Producers and consumers may be made before it.
ottla_status ottla_client_new(const struct ottla_client_options *options,
                              struct ottla_client **client,
                              struct ottla_error **error);

// Makes a client and waits until it has reached a broker, at most for the options' connect
// timeout. Leaves no completion.
ottla_status ottla_client_connect(const struct ottla_client_options *options,
                                  struct ottla_client **client,
                                  struct ottla_error **error);

// A client without a broker, for tests of programs and bindings: every record is written at
// once, to partition 0 unless it names another, topics exist when used, and consumers hand back
// what was submitted (the last 16 MiB of a partition).
ottla_status ottla_client_new_echo(struct ottla_client **client, struct ottla_error **error);

// The descriptor to poll for reading: readable while completions wait, cleared by `ottla_poll`. An
// event loop that has to may read it (8 bytes), and then polls until nothing comes. It belongs to the client and is closed with it; duplicate it (`dup`) for a
// runtime that closes what it is given. -1 where there is none, in a forked child, and for a null client.
int32_t ottla_client_fd(const struct ottla_client *client);

// Takes up to `max` completions, oldest first: writes them to `completions` and their number to
// `*count`. If there are none, waits up to `timeout_ms` for one: 0 does not wait, -1 waits for
// as long as it takes; nothing until then is OK with `*count` 0. Errors in completions are
// yours. When fewer than `max` came, all were taken. After `ottla_client_close`, once all were
// taken: `OTTLA_STATUS_CLOSED`.
ottla_status ottla_poll(const struct ottla_client *client,
                        struct ottla_completion *completions,
                        size_t max,
                        int64_t timeout_ms,
                        size_t *count,
                        struct ottla_error **error);

// Creates a topic: the outcome is an `OTTLA_COMPLETION_TOPIC_CREATED` with this tag.
// `partitions` and `replication` of -1 leave the choice to the cluster.
ottla_status ottla_create_topic(const struct ottla_client *client,
                                const char *topic,
                                int32_t partitions,
                                int16_t replication,
                                uint64_t tag,
                                struct ottla_error **error);

// Creates a topic and waits for the outcome, for up to `timeout_ms` (-1: no limit).
ottla_status ottla_create_topic_wait(const struct ottla_client *client,
                                     const char *topic,
                                     int32_t partitions,
                                     int16_t replication,
                                     int64_t timeout_ms,
                                     struct ottla_error **error);

// Counters of the connections, producers and consumers of the client's cluster, as JSON:
// an object whose `bad_stuff` is all zero when all is well; times are in seconds. It is yours,
// freed with `ottla_string_free`. Names stay, and there may be more of them in later versions.
ottla_status ottla_client_stats_json(const struct ottla_client *client,
                                     char **json,
                                     struct ottla_error **error);

// What the client knows of the cluster now, as JSON: its id, brokers and how they do, topics in use and who leads their
// partitions. No broker is asked. It is yours, freed with `ottla_string_free`. Names stay, and there may be more of them in
// later versions.
ottla_status ottla_client_cluster_json(const struct ottla_client *client,
                                       char **json,
                                       struct ottla_error **error);

// What is in the way of reaching brokers now, in words, for programs that give up a wait of their own and want to say why; null if
// nothing is that is known. It is yours, freed with `ottla_string_free`.
ottla_status ottla_client_in_the_way(const struct ottla_client *client,
                                     char **words,
                                     struct ottla_error **error);

// Frees a string that a call gave out through a pointer. Null is allowed.
void ottla_string_free(char *string);

// Closes the client: what is still outstanding ends as `OTTLA_STATUS_CLOSED`, and when the call
// returns all of it can be polled. To have records delivered first, close their producers first.
// Later calls with the client, its producers and consumers give `OTTLA_STATUS_CLOSED`; closing
// again is OK.
ottla_status ottla_client_close(const struct ottla_client *client, struct ottla_error **error);

// Closes the client, if it is not closed, and frees it. Its producers and consumers are closed
// by it and remain to be freed. Null is allowed.
void ottla_client_free(struct ottla_client *client);

// A consumer of a client.
ottla_status ottla_consumer_new(const struct ottla_client *client,
                                const struct ottla_consumer_options *options,
                                struct ottla_consumer **consumer,
                                struct ottla_error **error);

// Nobody waits any more of those whom `ottla_consumer_try_next` or `ottla_consumer_try_next_event` gave nothing: the program has to
// ask again within `max_poll_interval_ms`. Without this a program that hangs after it has looked keeps its partitions, since
// nobody can tell here whether it still waits for the completion. Waits with a timeout say it by themselves. Does nothing while
// another thread waits, and without a group.
ottla_status ottla_consumer_waits_no_more(const struct ottla_consumer *consumer,
                                          struct ottla_error **error);

// The next batch, if there is one now: `*batch` is yours, to be freed with `ottla_batch_free`. If
// there is none: OK, `*batch` is null, and an `OTTLA_COMPLETION_CONSUMER_READY` comes when it is
// worth asking again (it may turn out that there is nothing yet); one for all threads that asked,
// so who takes it asks until there is none. After an error that is not fatal, ask again. In a group, to ask may say that the
// batch before is done: see `ottla_commit`. Who has found nothing counts as waiting until something is found: see
// `ottla_consumer_waits_no_more`.
ottla_status ottla_consumer_try_next(const struct ottla_consumer *consumer,
                                     struct ottla_batch **batch,
                                     struct ottla_error **error);

// Waits for the next batch for up to `timeout_ms` (-1: no limit); nothing until then is OK with
// `*batch` null. Leaves no completions.
ottla_status ottla_consumer_next(const struct ottla_consumer *consumer,
                                 int64_t timeout_ms,
                                 struct ottla_batch **batch,
                                 struct ottla_error **error);

// `ottla_consumer_try_next` up to an end that was looked up before (`ottla_list_offsets`): the next batch, of whatever
// partition, until the position of each of the `end_count` partitions in `ends` has reached its offset; then `*reached`
// is true and `*batch` null. A loop of one's own over positions would wait for ever where the last offsets hold
// nothing that is handed out. A partition that is not read, or not known yet, has reached nothing. Without
// `ends` this is `ottla_consumer_try_next`.
ottla_status ottla_consumer_try_next_until(const struct ottla_consumer *consumer,
                                           const struct ottla_partition_offset *ends,
                                           size_t end_count,
                                           struct ottla_batch **batch,
                                           bool *reached,
                                           struct ottla_error **error);

// The same, and waits as `ottla_consumer_next` does: nothing within `timeout_ms` (-1: no limit) is OK with `*batch` null
// and `*reached` false.
ottla_status ottla_consumer_next_until(const struct ottla_consumer *consumer,
                                       const struct ottla_partition_offset *ends,
                                       size_t end_count,
                                       int64_t timeout_ms,
                                       struct ottla_batch **batch,
                                       bool *reached,
                                       struct ottla_error **error);

// Where reading stands: the offset behind what was handed out, or passed over because it is not handed out (markers of
// transactions, what compaction has removed). Before the first record where reading begins, once that is known.
// `*offset` is -1 until then, and for a partition that is not read.
ottla_status ottla_consumer_position(const struct ottla_consumer *consumer,
                                     const char *topic,
                                     int32_t partition,
                                     int64_t *offset,
                                     struct ottla_error **error);

// Goes on elsewhere in a partition that is read by this consumer. `where` is one of
// `ottla_start`, `start_value` as there. Never waits, also while another thread does in
// `ottla_consumer_next`.
ottla_status ottla_consumer_seek(const struct ottla_consumer *consumer,
                                 const char *topic,
                                 int32_t partition,
                                 int32_t start_at,
                                 int64_t start_value,
                                 struct ottla_error **error);

// Stops fetching; a thread that waits in `ottla_consumer_next` gets `OTTLA_STATUS_CLOSED`, and so
// do later calls. Closing again is OK. Batches stay usable. A member of a group commits what is done and leaves it in the
// background: `ottla_consumer_leave` tells when.
ottla_status ottla_consumer_close(const struct ottla_consumer *consumer,
                                  struct ottla_error **error);

// Closes the consumer, if it is not closed, and frees it. Null is allowed.
void ottla_consumer_free(struct ottla_consumer *consumer);

// The status that the error stands for; `OTTLA_STATUS_OK` for null.
ottla_status ottla_error_status(const struct ottla_error *error);

// Its stable name ("unknown_topic"); "" for null. Lives as long as the error.
const char *ottla_error_name(const struct ottla_error *error);

// The message: what happened, for people; "" for null. Lives as long as the error.
const char *ottla_error_message(const struct ottla_error *error);

// The advice: one sentence on what to do about it; "" for null. Lives as long as the error.
const char *ottla_error_advice(const struct ottla_error *error);

// The Kafka error code that a broker answered; 0 if none did.
int32_t ottla_error_broker_code(const struct ottla_error *error);

// Whether the same call may succeed later with nothing changed.
bool ottla_error_is_retriable(const struct ottla_error *error);

// Whether the handle that gave the error is of no more use.
bool ottla_error_is_fatal(const struct ottla_error *error);

// Whether the record may be in the log although its send failed. `false`: it certainly is not,
// sending it again makes no duplicate.
bool ottla_error_maybe_written(const struct ottla_error *error);

// How many records failed since the last report without anybody being told, as a flush or close
// that failed says; 0 for null, and for errors that tell of none.
size_t ottla_error_undelivered_records(const struct ottla_error *error);

// The error of the record that failed first; null if there are none. Lives as long as the error, and is
// not freed by itself.
const struct ottla_error *ottla_error_undelivered_first(const struct ottla_error *error);

// One of the topics they were for, counted from 0; null behind the last. 16 are named at most.
// Lives as long as the error.
const char *ottla_error_undelivered_topic(const struct ottla_error *error, size_t index);

// Frees an error. Null is allowed.
void ottla_error_free(struct ottla_error *error);

// `ottla_consumer_try_next` of a group's consumer, with what the group says between two batches: one of `*batch` and `*event` is
// set, or, if there is nothing now, none. Both are yours. Programs that never call this leave to the consumer what there is
// to do when partitions come and go.
ottla_status ottla_consumer_try_next_event(const struct ottla_consumer *consumer,
                                           struct ottla_batch **batch,
                                           struct ottla_event **event,
                                           struct ottla_error **error);

// The same, and waits as `ottla_consumer_next` does: nothing within `timeout_ms` (-1: no limit) is OK with both null.
ottla_status ottla_consumer_next_event(const struct ottla_consumer *consumer,
                                       int64_t timeout_ms,
                                       struct ottla_batch **batch,
                                       struct ottla_event **event,
                                       struct ottla_error **error);

// The kind of an event: one of `ottla_event_kind`. New ones may be added: ignore those you do not know. 0 for null.
int32_t ottla_event_kind_of(const struct ottla_event *event);

// The partitions that an event is about. They live as long as the event, and are not to be freed. Null for null.
const struct ottla_partitions *ottla_event_partitions(const struct ottla_event *event);

// How long it is until partitions are given up whatever is done, in ms; 0 when that is over. -1 for other kinds, and null.
int64_t ottla_event_time_left_ms(const struct ottla_event *event);

// Frees an event. Null is allowed.
void ottla_event_free(struct ottla_event *event);

// Commits what is done when this is called; its end is an `OTTLA_COMPLETION_COMMITTED` with this tag. Errors of it are
// `OTTLA_STATUS_FENCED` once the membership is lost, `OTTLA_STATUS_INVALID_ARGUMENT` without a group, and the broker's. Waits
// for nobody, as all calls here.
ottla_status ottla_consumer_commit(const struct ottla_consumer *consumer,
                                   uint64_t tag,
                                   struct ottla_error **error);

// The same, and waits for the end, for up to `timeout_ms` (-1: no limit); after that it may still be committed.
ottla_status ottla_consumer_commit_wait(const struct ottla_consumer *consumer,
                                        int64_t timeout_ms,
                                        struct ottla_error **error);

// Commits these offsets, `count` of them, of the next record to read in each partition, whatever is done; its end is an
// `OTTLA_COMPLETION_COMMITTED` with this tag.
ottla_status ottla_consumer_commit_to(const struct ottla_consumer *consumer,
                                      const struct ottla_partition_offset *offsets,
                                      size_t count,
                                      uint64_t tag,
                                      struct ottla_error **error);

// The same, and waits for the end, for up to `timeout_ms` (-1: no limit); after that it may still be committed.
ottla_status ottla_consumer_commit_to_wait(const struct ottla_consumer *consumer,
                                           const struct ottla_partition_offset *offsets,
                                           size_t count,
                                           int64_t timeout_ms,
                                           struct ottla_error **error);

// Reads these topics, `count` of them, from now on, with the other members of the group; patterns as in
// `ottla_consumer_options`.
ottla_status ottla_consumer_subscribe(const struct ottla_consumer *consumer,
                                      const char *const *topics,
                                      size_t count,
                                      struct ottla_error **error);

// Closes the consumer as `ottla_consumer_close` does; an `OTTLA_COMPLETION_CLOSED` with this tag comes once it has committed
// what is done and left its group, after 10 s at the latest. The batch in hand is not done. Without a group it comes at once.
// Leaving again is OK, and ends when the first has; the consumer may be freed meanwhile.
ottla_status ottla_consumer_leave(const struct ottla_consumer *consumer,
                                  uint64_t tag,
                                  struct ottla_error **error);

// The same, and waits for the end, for up to `timeout_ms` (-1: no limit but the 10 s); after that it goes on by itself.
ottla_status ottla_consumer_leave_wait(const struct ottla_consumer *consumer,
                                       int64_t timeout_ms,
                                       struct ottla_error **error);

// Every line from now on that is as important as `level` (an `ottla_log_level`), or more so, is
// kept for `ottla_logs_next`. 1,024 may wait; those that come then are lost, and counted.
ottla_status ottla_logs_open(int32_t level, struct ottla_logs **logs, struct ottla_error **error);

// The next line. If there is none, waits up to `timeout_ms` for one: 0 does not wait, -1 waits for
// as long as it takes; none until then is OK with a null `*log`. The line is yours, freed with
// `ottla_log_free`. After `ottla_logs_close`, once all were taken: `OTTLA_STATUS_CLOSED`.
ottla_status ottla_logs_next(const struct ottla_logs *logs,
                             int64_t timeout_ms,
                             struct ottla_log **log,
                             struct ottla_error **error);

// The descriptor to poll for reading: readable while a line waits, and after `ottla_logs_close`.
// It belongs to the reader and is closed with it. -1 where there is none, and for a null reader.
int32_t ottla_logs_fd(const struct ottla_logs *logs);

// Lines lost so far because nobody took them; 0 for a null reader.
uint64_t ottla_logs_dropped(const struct ottla_logs *logs);

// Takes no more lines, and wakes the thread that waits for one. Closing again is OK.
ottla_status ottla_logs_close(const struct ottla_logs *logs, struct ottla_error **error);

// Closes the reader, if it is not closed, and frees it: no thread may be waiting in it. Null is
// allowed.
void ottla_logs_free(struct ottla_logs *logs);

// Fills `info` with the parts of a log line.
ottla_status ottla_log_describe(const struct ottla_log *log,
                                struct ottla_log_info *info,
                                struct ottla_error **error);

// Writes the first `max` fields of a line to `fields` and their number to `*count`.
ottla_status ottla_log_fields(const struct ottla_log *log,
                              struct ottla_log_field *fields,
                              size_t max,
                              size_t *count,
                              struct ottla_error **error);

// Frees a line. Null is allowed.
void ottla_log_free(struct ottla_log *log);

// Looks up offsets of partitions, `count` of them, in as few requests as there are leaders: each `wanted` names the oldest
// record that is kept (`OTTLA_START_EARLIEST`), the end (`OTTLA_START_LATEST`: one past the newest record) or the first
// record of a time (`OTTLA_START_TIMESTAMP`; the end if there is none). A partition may be named more than once. What
// may be otherwise in a moment is asked again, for as long as a request may take. `*offsets` is yours at once, freed with
// `ottla_offsets_free`, and has the results when an `OTTLA_COMPLETION_OFFSETS_LISTED` with this tag has come without an
// error.
ottla_status ottla_list_offsets(const struct ottla_client *client,
                                const struct ottla_assignment *wanted,
                                size_t count,
                                uint64_t tag,
                                struct ottla_offsets **offsets,
                                struct ottla_error **error);

// The same, and waits for the results, for up to `timeout_ms` (-1: no limit).
ottla_status ottla_list_offsets_wait(const struct ottla_client *client,
                                     const struct ottla_assignment *wanted,
                                     size_t count,
                                     int64_t timeout_ms,
                                     struct ottla_offsets **offsets,
                                     struct ottla_error **error);

// How many results there are: as many as were asked for; 0 until the lookup is done, and for null.
size_t ottla_offsets_len(const struct ottla_offsets *offsets);

// Result number `i`, in the order in which they were asked for, from 0: `*offset`, or why there is none.
ottla_status ottla_offsets_at(const struct ottla_offsets *offsets,
                              size_t i,
                              int64_t *offset,
                              struct ottla_error **error);

// Frees them. Null is allowed.
void ottla_offsets_free(struct ottla_offsets *offsets);

// A producer of a client. `options` may be null: all defaults.
ottla_status ottla_producer_new(const struct ottla_client *client,
                                const struct ottla_producer_options *options,
                                struct ottla_producer **producer,
                                struct ottla_error **error);

// Submits records for one topic, in order, without waiting and without keeping any pointer. Stops
// at the first record that is refused, also one with something wrong in it: `*accepted` (which may
// be null only if every record not accepted may be lost) is the number before it, and status and
// error say why. Records before it are on their way. Each accepted record is part of exactly one
// `OTTLA_COMPLETION_DELIVERY` with this tag.
//
// What is submitted one call after the other stays in that order within a partition, whichever threads
// call: always in a topic of one partition, for a named partition, and for equal keys with
// `OTTLA_PARTITIONER_KEY_HASH`; of records that are spread, a batch that had to move to another
// partition may come behind later ones.
ottla_status ottla_producer_send_batch(const struct ottla_producer *producer,
                                       const char *topic,
                                       const struct ottla_record *records,
                                       size_t count,
                                       uint64_t tag,
                                       size_t *accepted,
                                       struct ottla_error **error);

// The same for records packed into one piece of memory: `bytes` holds exactly `count` of them,
// in the packed form described at the top of this header. Bytes that are not in that form, from
// the first to the last, are refused whole, with `*accepted` 0.
ottla_status ottla_producer_send_packed(const struct ottla_producer *producer,
                                        const char *topic,
                                        const uint8_t *bytes,
                                        size_t len,
                                        size_t count,
                                        uint64_t tag,
                                        size_t *accepted,
                                        struct ottla_error **error);

// Asks for an `OTTLA_COMPLETION_FLUSHED` with this tag once everything accepted before the call
// is resolved; its deliveries come before it.
ottla_status ottla_producer_flush(const struct ottla_producer *producer,
                                  uint64_t tag,
                                  struct ottla_error **error);

// Waits until everything accepted before the call is resolved, for up to `timeout_ms` (-1: no
// limit but the records' own). `OTTLA_STATUS_UNDELIVERED`: records failed since the last such call
// whose completions nobody has polled; see `ottla_error_undelivered_records`. Which records they
// are is told by their completions.
ottla_status ottla_producer_flush_wait(const struct ottla_producer *producer,
                                       int64_t timeout_ms,
                                       struct ottla_error **error);

// Takes no more records and delivers what was accepted, for up to `timeout_ms`; what is left
// then fails. Its end is an `OTTLA_COMPLETION_CLOSED` with this tag. Closing again is OK.
ottla_status ottla_producer_close(const struct ottla_producer *producer,
                                  uint64_t timeout_ms,
                                  uint64_t tag,
                                  struct ottla_error **error);

// The same, and waits for the end. `OTTLA_STATUS_UNDELIVERED` as for `ottla_producer_flush_wait`.
ottla_status ottla_producer_close_wait(const struct ottla_producer *producer,
                                       uint64_t timeout_ms,
                                       struct ottla_error **error);

// Frees a producer. Records that were accepted are still delivered while the client is open.
// Null is allowed.
void ottla_producer_free(struct ottla_producer *producer);

// What properties of other clients are here: a JSON object of the settings of one `owner` (an
// `ottla_owner`), by the names they have in the option structs, without units. Sizes are bytes, time
// spans nanoseconds; acks, compression ("zstd:9"), partitioner and start are words. A client's are
// passed over for the others, and theirs for it. What is not taken is `OTTLA_STATUS_CONFIG`, with all
// of it and what there is instead in the message; values are never repeated, they may be secrets. Of TLS and SASL it says
// only that there are any (`tls` is true, `sasl` the mechanism): give the properties themselves to the client's options.
// The string is yours, freed with `ottla_string_free`.
ottla_status ottla_properties_json(int32_t owner,
                                   const struct ottla_property *properties,
                                   size_t count,
                                   char **json,
                                   struct ottla_error **error);

// The stable lower-case name of a status ("unknown_topic"), the same in every language. Static;
// never null, whatever the number.
const char *ottla_status_name(int32_t status);

// The version of the library, "MAJOR.MINOR.PATCH". Static.
const char *ottla_version(void);

// Hands out nothing of these partitions, `count` of them, until they are resumed. What was fetched of them is kept, within
// `buffer_memory`, and nothing more is fetched. A batch that another thread is just taking may still come:
// `ottla_batch_standing` tells it. All of them are paused or, after an error, none: `OTTLA_STATUS_UNKNOWN_PARTITION` if one
// is not read. Pausing again does nothing.
ottla_status ottla_consumer_pause(const struct ottla_consumer *consumer,
                                  const struct ottla_partition *partitions,
                                  size_t count,
                                  struct ottla_error **error);

// Hands these partitions out again, from where they were. Errors are those of `ottla_consumer_pause`.
ottla_status ottla_consumer_resume(const struct ottla_consumer *consumer,
                                   const struct ottla_partition *partitions,
                                   size_t count,
                                   struct ottla_error **error);

// Reads these partitions no more: nothing of them is handed out after this, and what was fetched is dropped. Those of a
// whole topic stay out until they are assigned. All of them are left or, after an error, none:
// `OTTLA_STATUS_UNKNOWN_PARTITION` if one is not read.
ottla_status ottla_consumer_unassign(const struct ottla_consumer *consumer,
                                     const struct ottla_partition *partitions,
                                     size_t count,
                                     struct ottla_error **error);

// Reads these partitions, `count` of them, too. One that is read already goes on at its start, as after
// `ottla_consumer_seek`. One that does not exist is told once by the calls that read, and read when it does.
ottla_status ottla_consumer_assign(const struct ottla_consumer *consumer,
                                   const struct ottla_assignment *assignments,
                                   size_t count,
                                   struct ottla_error **error);

// The partitions that are paused: `*partitions` is yours, freed with `ottla_partitions_free`.
ottla_status ottla_consumer_paused(const struct ottla_consumer *consumer,
                                   struct ottla_partitions **partitions,
                                   struct ottla_error **error);

// The partitions that are read: of whole topics, those known so far; those that were assigned, whether they are there or
// not. `*partitions` is yours, freed with `ottla_partitions_free`.
ottla_status ottla_consumer_assignment(const struct ottla_consumer *consumer,
                                       struct ottla_partitions **partitions,
                                       struct ottla_error **error);

// How many offsets lie between the position of a partition and its end, as its leader told that with the last fetch:
// nobody is asked. Offsets without records count: 0 is the end, more is a bound. `*lag` is -1 until both are known, and
// for a partition that is not read. The end of a paused partition is not heard of.
ottla_status ottla_consumer_lag(const struct ottla_consumer *consumer,
                                const char *topic,
                                int32_t partition,
                                int64_t *lag,
                                struct ottla_error **error);

// How many partitions there are; 0 for null.
size_t ottla_partitions_len(const struct ottla_partitions *partitions);

// Partition number `i` of the list, from 0. Its topic lives as long as the list.
ottla_status ottla_partitions_at(const struct ottla_partitions *partitions,
                                 size_t i,
                                 struct ottla_partition *partition,
                                 struct ottla_error **error);

// Frees a list. Null is allowed.
void ottla_partitions_free(struct ottla_partitions *partitions);

// Starts a cluster without topics. `options` may be null: one broker. Builds for distribution have
// it; one without the feature `test-broker` answers `OTTLA_STATUS_INVALID_ARGUMENT`.
ottla_status ottla_test_broker_new(const struct ottla_test_broker_options *options,
                                   struct ottla_test_broker **broker,
                                   struct ottla_error **error);

// Where to reach it, "host:port,host:port"; "" for null. Lives as long as the broker.
const char *ottla_test_broker_bootstrap(const struct ottla_test_broker *broker);

// The certificate of its own authority, in PEM: what clients are to trust. "" without TLS, and for null. Lives as long as
// the broker.
const char *ottla_test_broker_ca(const struct ottla_test_broker *broker);

// Makes a certificate and its key for a client, in PEM: yours, freed with `ottla_string_free`. Brokers know its owner as
// "User:CN=name".
ottla_status ottla_test_broker_client_identity(const struct ottla_test_broker *broker,
                                               const char *name,
                                               char **certificate,
                                               char **key,
                                               struct ottla_error **error);

// Adds a user, or changes a password. Who is logged in stays.
ottla_status ottla_test_broker_set_user(const struct ottla_test_broker *broker,
                                        const char *name,
                                        const char *password,
                                        struct ottla_error **error);

// Writes how many logins began to `*begun`, and how many of them were right to `*succeeded`.
ottla_status ottla_test_broker_logins(const struct ottla_test_broker *broker,
                                      uint64_t *begun,
                                      uint64_t *succeeded,
                                      struct ottla_error **error);

// Creates a topic in it at once; partition p is led by broker p mod n + 1.
ottla_status ottla_test_broker_create_topic(const struct ottla_test_broker *broker,
                                            const char *topic,
                                            int32_t partitions,
                                            int32_t replication,
                                            struct ottla_error **error);

// How long followers take to copy what is written: acknowledgements by all replicas and consumers
// wait that long. Also for what waits now: 0 lets it go; -1: they never copy, until this is called
// again. A topic with one replica has no followers and never waits.
ottla_status ottla_test_broker_set_replica_delay(const struct ottla_test_broker *broker,
                                                 int64_t delay_ms,
                                                 struct ottla_error **error);

// Stops the broker with this id: its port refuses, its connections are cut, its records stay.
// `move_leaders` other than 0: the cluster notices, and others take over its partitions.
ottla_status ottla_test_broker_stop_broker(const struct ottla_test_broker *broker,
                                           int32_t id,
                                           int32_t move_leaders,
                                           struct ottla_error **error);

// Starts a stopped broker again, on its old port.
ottla_status ottla_test_broker_start_broker(const struct ottla_test_broker *broker,
                                            int32_t id,
                                            struct ottla_error **error);

// Another cluster takes the place of this one, at the same addresses: it has this id, no topics and no
// records, and gives its producer ids from the beginning again. All connections are cut.
ottla_status ottla_test_broker_replace(const struct ottla_test_broker *broker,
                                       const char *cluster_id,
                                       struct ottla_error **error);

// Writes the offset that the next record of a partition gets to `*offset`: how many were written.
ottla_status ottla_test_broker_log_end(const struct ottla_test_broker *broker,
                                       const char *topic,
                                       int32_t partition,
                                       int64_t *offset,
                                       struct ottla_error **error);

// Says how the batches kept in a topic are compressed: bit `1 << c` of `*codecs` is set for each
// `ottla_compression` c that occurs.
ottla_status ottla_test_broker_codecs(const struct ottla_test_broker *broker,
                                      const char *topic,
                                      uint32_t *codecs,
                                      struct ottla_error **error);

// Stops and frees it, with all it holds. Null is allowed.
void ottla_test_broker_free(struct ottla_test_broker *broker);

// Has a cluster for tests do something: `command` is an object in JSON whose `do` names it (`move_leader`, `inject`,
// `records`, ...); what it may be and what comes back, as JSON to `*answer`, follows the embedded broker and may change with any
// version. For test tools of other languages: a name or a member that is not known is `OTTLA_STATUS_INVALID_ARGUMENT`. The answer
// is yours, freed with `ottla_string_free`.
ottla_status ottla_test_broker_do(const struct ottla_test_broker *broker,
                                  const char *command,
                                  char **answer,
                                  struct ottla_error **error);

// Writes where a group is to `*state`, one of `ottla_test_group_state`, and how many members it has to `*members`.
ottla_status ottla_test_broker_group(const struct ottla_test_broker *broker,
                                     const char *group,
                                     int32_t *state,
                                     size_t *members,
                                     struct ottla_error **error);

// Writes the offset that a group has committed for a partition to `*offset`; -1: none.
ottla_status ottla_test_broker_committed(const struct ottla_test_broker *broker,
                                         const char *group,
                                         const char *topic,
                                         int32_t partition,
                                         int64_t *offset,
                                         struct ottla_error **error);

// Commits an offset, whoever is in the group; makes the group if there is none.
ottla_status ottla_test_broker_set_committed(const struct ottla_test_broker *broker,
                                             const char *group,
                                             const char *topic,
                                             int32_t partition,
                                             int64_t offset,
                                             struct ottla_error **error);

// A queue for the requests of token providers.
ottla_status ottla_token_requests_open(struct ottla_token_requests **requests,
                                       struct ottla_error **error);

// Makes a provider for `ottla_oauth_options`. Its requests come to this queue with this tag, one at a time, and it is asked
// only by clients. It may be freed as soon as these are made: they keep what they need of it, and once they are gone as well, an
// `OTTLA_TOKEN_RELEASED` comes. Without the queue it fails.
ottla_status ottla_token_provider_new(const struct ottla_token_requests *requests,
                                      uint64_t tag,
                                      struct ottla_token_provider **provider,
                                      struct ottla_error **error);

// Frees a provider. Null is allowed.
void ottla_token_provider_free(struct ottla_token_provider *provider);

// What is wanted next. If there is nothing, waits up to `timeout_ms` for it: 0 does not wait, -1 waits for as long as it takes;
// nothing until then is OK with a null `*request`. What comes is yours, freed with `ottla_token_request_free`. After
// `ottla_token_requests_close` there are no more requests for tokens, but `OTTLA_TOKEN_RELEASED` comes still, for each provider whose end
// was not told; in between, and after the last: `OTTLA_STATUS_CLOSED`, at once.
ottla_status ottla_token_requests_next(const struct ottla_token_requests *requests,
                                       int64_t timeout_ms,
                                       struct ottla_token_request **request,
                                       struct ottla_error **error);

// The descriptor to poll for reading: readable while something is wanted, and after `ottla_token_requests_close`. It belongs to
// the queue and is closed with it. -1 where there is none, and for null.
int32_t ottla_token_requests_fd(const struct ottla_token_requests *requests);

// Takes no more requests: those that lie there have failed, and so do its providers from now on. Wakes the thread that waits for one.
// `ottla_token_requests_next` still tells of providers that are released. Closing again is OK.
ottla_status ottla_token_requests_close(const struct ottla_token_requests *requests,
                                        struct ottla_error **error);

// Closes the queue, if it is not closed, and frees it: no thread may be waiting in it. Null is allowed.
void ottla_token_requests_free(struct ottla_token_requests *requests);

// Fills `info` with the parts of a request.
ottla_status ottla_token_request_describe(const struct ottla_token_request *request,
                                          struct ottla_token_request_info *info,
                                          struct ottla_error **error);

// Answers a request with a token. If nobody waits for it any more, it is of no use, and that is OK. A second answer is
// `OTTLA_STATUS_INVALID_ARGUMENT`, as is a token that is not well formed as a struct; what brokers could not take is told to who
// waits, as `OTTLA_STATUS_CREDENTIALS`.
ottla_status ottla_token_request_give(const struct ottla_token_request *request,
                                      const struct ottla_token *given,
                                      struct ottla_error **error);

// Answers a request with words for people on why there is no token. They are told as they are, to 500 characters: they must not
// tell secrets. The provider is asked again after a while.
ottla_status ottla_token_request_fail(const struct ottla_token_request *request,
                                      const char *words,
                                      struct ottla_error **error);

// Frees a request; one for a token that was not answered has failed. Null is allowed.
void ottla_token_request_free(struct ottla_token_request *request);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OTTLA_H */

#ifndef OTTLA_CLIENT_OPTIONS_INIT
/* Start values of the option structs: all defaults. */
#ifdef __cplusplus
/* C++ before C++20 has no members by name in a list of start values. */
template <typename Options>
inline Options ottla_sized_options() {
  Options options = Options();
  options.size = sizeof(Options);
  return options;
}
#define OTTLA_CLIENT_OPTIONS_INIT (ottla_sized_options<ottla_client_options>())
#define OTTLA_TLS_OPTIONS_INIT (ottla_sized_options<ottla_tls_options>())
#define OTTLA_SASL_OPTIONS_INIT (ottla_sized_options<ottla_sasl_options>())
#define OTTLA_OAUTH_OPTIONS_INIT (ottla_sized_options<ottla_oauth_options>())
#define OTTLA_TOKEN_INIT (ottla_sized_options<ottla_token>())
#define OTTLA_PRODUCER_OPTIONS_INIT (ottla_sized_options<ottla_producer_options>())
#define OTTLA_CONSUMER_OPTIONS_INIT (ottla_sized_options<ottla_consumer_options>())
#define OTTLA_TEST_BROKER_OPTIONS_INIT (ottla_sized_options<ottla_test_broker_options>())
#else
#define OTTLA_CLIENT_OPTIONS_INIT {.size = sizeof(ottla_client_options)}
#define OTTLA_TLS_OPTIONS_INIT {.size = sizeof(ottla_tls_options)}
#define OTTLA_SASL_OPTIONS_INIT {.size = sizeof(ottla_sasl_options)}
#define OTTLA_OAUTH_OPTIONS_INIT {.size = sizeof(ottla_oauth_options)}
#define OTTLA_TOKEN_INIT {.size = sizeof(ottla_token)}
#define OTTLA_PRODUCER_OPTIONS_INIT {.size = sizeof(ottla_producer_options)}
#define OTTLA_CONSUMER_OPTIONS_INIT {.size = sizeof(ottla_consumer_options)}
#define OTTLA_TEST_BROKER_OPTIONS_INIT {.size = sizeof(ottla_test_broker_options)}
#endif
#endif
