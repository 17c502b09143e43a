//! Schemas of the requests about groups.

use super::Field::{Array, Bytes, String, Values};
use super::{INT8, INT32, INT64, ON, Shape, UUID, plain};

pub(super) static JOIN_GROUP: Shape = Shape {
    flexible: 6,
    body: plain(&[
        (0, ON, String), // group
        (0, ON, INT32),  // session timeout
        (1, ON, INT32),  // rebalance timeout
        (0, ON, String), // member
        (5, ON, String), // instance
        (0, ON, String), // protocol type
        (0, ON, Array(&plain(&[(0, ON, String), (0, ON, Bytes)]))),
        (8, ON, String), // reason
    ]),
};

pub(super) static SYNC_GROUP: Shape = Shape {
    flexible: 4,
    body: plain(&[
        (0, ON, String), // group
        (0, ON, INT32),  // generation
        (0, ON, String), // member
        (3, ON, String), // instance
        (5, ON, String), // protocol type
        (5, ON, String), // protocol
        (0, ON, Array(&plain(&[(0, ON, String), (0, ON, Bytes)]))),
    ]),
};

pub(super) static HEARTBEAT: Shape = Shape {
    flexible: 4,
    body: plain(&[
        (0, ON, String), // group
        (0, ON, INT32),  // generation
        (0, ON, String), // member
        (3, ON, String), // instance
    ]),
};

pub(super) static LEAVE_GROUP: Shape = Shape {
    flexible: 4,
    body: plain(&[
        (0, ON, String), // group
        (0, 2, String),  // member
        // member, instance, reason
        (3, ON, Array(&plain(&[(3, ON, String), (3, ON, String), (5, ON, String)]))),
    ]),
};

pub(super) static OFFSET_COMMIT: Shape = Shape {
    flexible: 8,
    body: plain(&[
        (2, ON, String), // group
        (2, ON, INT32),  // generation
        (2, ON, String), // member
        (7, ON, String), // instance
        (2, 4, INT64),   // retention
        (
            2,
            ON,
            Array(&plain(&[
                (2, ON, String), // name
                (
                    2,
                    ON,
                    Array(&plain(&[
                        (2, ON, INT32),  // partition
                        (2, ON, INT64),  // offset
                        (6, ON, INT32),  // leader epoch
                        (2, ON, String), // metadata
                    ])),
                ),
            ])),
        ),
    ]),
};

pub(super) static OFFSET_FETCH: Shape = Shape {
    flexible: 6,
    body: plain(&[
        (1, 7, String), // group
        (1, 7, Array(&plain(&[(1, 7, String), (1, 7, Values(&INT32))]))),
        (
            8,
            ON,
            Array(&plain(&[
                (8, ON, String), // group
                (9, ON, String), // member
                (9, ON, INT32),  // member epoch
                (8, ON, Array(&plain(&[(8, ON, String), (8, ON, Values(&INT32))]))),
            ])),
        ),
        (7, ON, INT8), // require stable
    ]),
};

pub(super) static OFFSET_DELETE: Shape = Shape {
    flexible: ON,
    body: plain(&[
        (0, ON, String), // group
        (0, ON, Array(&plain(&[(0, ON, String), (0, ON, Array(&plain(&[(0, ON, INT32)])))]))),
    ]),
};

pub(super) static DESCRIBE_GROUPS: Shape = Shape {
    flexible: 5,
    body: plain(&[
        (0, ON, Values(&String)), // groups
        (3, ON, INT8),            // include authorized operations
    ]),
};

pub(super) static LIST_GROUPS: Shape = Shape {
    flexible: 3,
    body: plain(&[(4, ON, Values(&String)), (5, ON, Values(&String))]), // states and types
};

pub(super) static DELETE_GROUPS: Shape =
    Shape { flexible: 2, body: plain(&[(0, ON, Values(&String))]) };

pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = Shape {
    flexible: 0,
    body: plain(&[
        (0, ON, String),          // group
        (0, ON, String),          // member
        (0, ON, INT32),           // member epoch
        (0, ON, String),          // instance
        (0, ON, String),          // rack
        (0, ON, INT32),           // rebalance timeout
        (0, ON, Values(&String)), // topics
        (1, ON, String),          // regular expression
        (0, ON, String),          // assignor
        (0, ON, Array(&plain(&[(0, ON, UUID), (0, ON, Values(&INT32))]))),
    ]),
};

pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = Shape {
    flexible: 0,
    body: plain(&[
        (0, ON, Values(&String)), // groups
        (0, ON, INT8),            // include authorized operations
    ]),
};
