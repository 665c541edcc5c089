//! Questions that change nothing: lists and objects at versions, as tables, as metadata alone.

use rand::Rng as _;
use rand::rngs::StdRng;

use super::script::{NAMES, NAMESPACES, Op, PLAIN, SUBJECTS, one_in, pick};

pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
pub(crate) const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
/// A version that is not reached in a test.
pub(crate) const FAR: &str = "900000000";

/// A query.
pub(crate) type Query = &'static [(&'static str, &'static str)];

/// A question, and the form its answer is to have.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) op: Op,
    pub(crate) accept: &'static str,
}

impl Question {
    /// A question for plain JSON.
    pub(crate) fn plain(op: Op) -> Self {
        Self { op, accept: PLAIN }
    }
}

const VERSION: &str = "resourceVersion";
const MATCH: &str = "resourceVersionMatch";

/// Lists that are answered.
const LISTS: &[Query] = &[
    &[(VERSION, "0")],
    &[(VERSION, "$head")],
    &[(VERSION, "$then")],
    &[(VERSION, "0"), ("limit", "1")],
    &[(VERSION, "$head"), ("limit", "1")],
    &[(VERSION, "$then"), ("limit", "1")],
    &[(VERSION, "0"), (MATCH, "NotOlderThan")],
    &[(VERSION, "$head"), (MATCH, "NotOlderThan")],
    &[(VERSION, "$then"), (MATCH, "NotOlderThan")],
    &[(VERSION, "0"), (MATCH, "NotOlderThan"), ("limit", "1")],
    &[(VERSION, "$head"), (MATCH, "NotOlderThan"), ("limit", "1")],
    &[(VERSION, "$head"), (MATCH, "Exact")],
    &[(VERSION, "$then"), (MATCH, "Exact")],
    &[(VERSION, "$then"), (MATCH, "Exact"), ("limit", "1")],
    &[(VERSION, ""), ("limit", "2")],
    &[(VERSION, "0"), ("continue", "$next"), ("limit", "1")],
];

/// Lists that are refused, but for one or two.
const WRONG_LISTS: &[Query] = &[
    &[(MATCH, "Exact")],
    &[(MATCH, "NotOlderThan")],
    &[(MATCH, "Nearly")],
    &[(MATCH, "Nearly"), (VERSION, "$head")],
    &[(MATCH, "Nearly"), (VERSION, "0"), ("continue", "$next")],
    &[(MATCH, "Exact"), (VERSION, "0")],
    &[(MATCH, "Exact"), (VERSION, "x")],
    &[(MATCH, "NotOlderThan"), (VERSION, "x")],
    &[(MATCH, "NotOlderThan"), ("continue", "$next")],
    &[(MATCH, "Exact"), (VERSION, "$head"), ("continue", "$next")],
    &[(MATCH, "Exact"), (VERSION, "0"), ("continue", "$next")],
    &[(VERSION, "x")],
    &[(VERSION, "-1")],
    &[(VERSION, "1.5")],
    &[(VERSION, "99999999999999999999")],
    &[(VERSION, "x"), ("limit", "1")],
    &[(VERSION, "x"), ("continue", "$next")],
    &[(VERSION, "$head"), ("continue", "$next")],
    &[("continue", "!")],
    &[("continue", "e30")],
    // {"v":"meta.k8s.io/v1"}, the same with rv 5, and of another form.
    &[("continue", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ")],
    &[("continue", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0")],
    &[("continue", "eyJ2IjoidjIifQ")],
    &[("sendInitialEvents", "true")],
    &[("sendInitialEvents", "false"), (VERSION, "0")],
    &[("sendInitialEvents", "true"), (MATCH, "Nearly")],
];

/// Reads of one object.
const OBJECTS: &[Query] = &[
    &[(VERSION, "")],
    &[(VERSION, "0")],
    &[(VERSION, "$head")],
    &[(VERSION, "$then")],
    &[(VERSION, "$rv")],
    &[(VERSION, "x")],
    &[(VERSION, "-1")],
    &[(VERSION, "$head"), (MATCH, "Exact")],
];

const SHOWN: &[Query] = &[
    &[],
    &[],
    &[("includeObject", "None")],
    &[("includeObject", "Metadata")],
    &[("includeObject", "Object")],
    &[("includeObject", "Some")],
    &[("includeObject", "")],
];

fn any(rng: &mut StdRng, from: &[Query]) -> Query {
    from[rng.random_range(0..from.len())]
}

/// A question, and before it the plain list that makes the real server's cache fresh.
pub(crate) fn next(rng: &mut StdRng) -> [Question; 2] {
    let subject = pick(rng, SUBJECTS);
    let namespace = *pick(rng, NAMESPACES);
    let collection = subject.collection(namespace);
    let list = Op::get(&collection);
    let object = Op::get(&format!("{collection}/{}", pick(rng, NAMES)));
    let selectors: &[Query] = &[
        &[("labelSelector", "tier=x")],
        &[("fieldSelector", "metadata.name=b")],
    ];
    let asked = match rng.random_range(0..20) {
        0..6 => {
            let op = list.clone().with(any(rng, LISTS));
            Question::plain(if one_in(rng, 4) {
                op.with(any(rng, selectors))
            } else {
                op
            })
        }
        6..9 => Question::plain(list.clone().with(any(rng, WRONG_LISTS))),
        9..12 => Question::plain(object.with(any(rng, OBJECTS))),
        12 => Question {
            op: object,
            accept: METADATA,
        },
        13 => Question {
            op: list.clone(),
            accept: METADATA_LIST,
        },
        14..16 => Question {
            op: object.with(any(rng, SHOWN)),
            accept: TABLE,
        },
        16 => Question {
            op: list.clone().with(&[("limit", "1")]).with(any(rng, SHOWN)),
            accept: TABLE,
        },
        _ => Question {
            op: list.clone().with(any(rng, SHOWN)),
            accept: TABLE,
        },
    };
    [Question::plain(list), asked]
}

/// Reads of a version that is not there; each waits three seconds for it.
pub(crate) fn too_early() -> Vec<Question> {
    let queries: &[Query] = &[
        &[(VERSION, FAR)],
        &[(VERSION, FAR), (MATCH, "NotOlderThan")],
        &[(VERSION, FAR), (MATCH, "Exact")],
        &[(VERSION, FAR), ("limit", "1")],
        &[(VERSION, FAR), ("fieldSelector", "metadata.name=a")],
    ];
    let mut asked = Vec::new();
    for subject in SUBJECTS {
        let collection = subject.collection(NAMESPACES[0]);
        let lists = queries.iter().map(|query| Op::get(&collection).with(query));
        asked.extend(lists.map(Question::plain));
        let object = Op::get(&format!("{collection}/a")).with(&[(VERSION, FAR)]);
        asked.push(Question::plain(object));
    }
    asked
}
