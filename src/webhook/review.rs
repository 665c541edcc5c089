//! A request's way in and out: from bytes to an object with its former self, from a verdict to the
//! answer that `kubectl` prints.
//!
//! Never does: judge. Bytes come from whoever reaches the port; nothing here panics on any.

use ipam::admit::Refusal;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::{DynamicObject, Status};
use serde::de::DeserializeOwned;

use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, names};

/// What is asked: about which kind of object, and whether to fill in or to judge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) task: Task,
    pub(super) kind: Kind,
}

/// What a webhook is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Fill in what was left out (a mutating webhook).
    Fill,
    /// Say yes or no (a validating webhook).
    Judge,
}

/// The kinds that have webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `SpiderSubnet`.
    Subnet,
    /// `SpiderIPPool`.
    Pool,
    /// `SpiderReservedIP`.
    Reserved,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Subnet, Self::Pool, Self::Reserved];

    /// The kind's name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Subnet => names::KIND_SUBNET,
            Self::Pool => names::KIND_POOL,
            Self::Reserved => names::KIND_RESERVED_IP,
        }
    }

    /// The name in the refusal of an update to an object that is being deleted.
    const fn short(self) -> &'static str {
        match self {
            Self::Subnet => "Subnet",
            Self::Pool => "IPPool",
            Self::Reserved => "ReservedIP",
        }
    }

    /// The resource's name in paths and webhook names.
    pub(super) fn singular(self) -> String {
        self.name().to_lowercase()
    }
}

impl Task {
    /// Where the webhook is served.
    pub(super) fn path(self, kind: Kind) -> String {
        let task = match self {
            Self::Fill => "mutate",
            Self::Judge => "validate",
        };
        let group = names::GROUP.replace('.', "-");
        format!("/{task}-{group}-{}-{}", names::VERSION, kind.singular())
    }
}

/// An object of one of the kinds.
#[derive(Debug)]
pub(super) enum Object {
    Subnet(Box<SpiderSubnet>),
    Pool(Box<SpiderIPPool>),
    Reserved(Box<SpiderReservedIP>),
}

/// A request that can be judged.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// What is to be stored, as it came.
    pub(super) raw: DynamicObject,
    /// The same, read; or why it can't be.
    pub(super) object: Result<Object, serde_json::Error>,
    /// What is stored. Of an object that can't be read nothing is known.
    pub(super) old: Option<Object>,
    request: AdmissionRequest<DynamicObject>,
}

/// A body that is no request of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the body is no AdmissionReview of admission.k8s.io/v1")]
    Json(#[source] serde_json::Error),
    #[error("the AdmissionReview has no request")]
    NoRequest,
    #[error("the request is to {operation} a {kind}, which this path does not judge")]
    Other { operation: String, kind: String },
}

/// Reads the body of a request about a `kind`.
///
/// Errors: [`ReviewError`]. Cost: O(body).
pub(super) fn read(body: &[u8], kind: Kind) -> Result<Asked, ReviewError> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(ReviewError::Json)?;
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| ReviewError::NoRequest)?;
    let mut request = request;
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let ours = request.kind.group == names::GROUP && request.kind.kind == kind.name();
    let (Some(raw), true, true) = (request.object.take(), writes, ours) else {
        return Err(ReviewError::Other {
            operation: format!("{:?}", request.operation),
            kind: request.kind.kind,
        });
    };
    let old = request.old_object.take();
    Ok(Asked {
        kind,
        object: typed(&raw, kind),
        old: old.and_then(|old| typed(&old, kind).ok()),
        raw,
        request,
    })
}

fn typed(raw: &DynamicObject, kind: Kind) -> Result<Object, serde_json::Error> {
    fn of<T: DeserializeOwned>(raw: &DynamicObject) -> Result<T, serde_json::Error> {
        serde_json::from_value(serde_json::to_value(raw)?)
    }
    Ok(match kind {
        Kind::Subnet => Object::Subnet(Box::new(of(raw)?)),
        Kind::Pool => Object::Pool(Box::new(of(raw)?)),
        Kind::Reserved => Object::Reserved(Box::new(of(raw)?)),
    })
}

impl Asked {
    /// The object's name; empty where the API server is still to make one.
    pub(super) fn name(&self) -> &str {
        let given = self.raw.metadata.name.as_deref();
        given.unwrap_or(&self.request.name)
    }

    /// Whether the object is there already.
    pub(super) fn is_update(&self) -> bool {
        self.request.operation == Operation::Update
    }

    /// Whether the object is being deleted, and this change does not let it go.
    pub(super) fn holds_on_to_what_goes(&self) -> bool {
        let meta = &self.raw.metadata;
        let held = meta
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == names::FINALIZER);
        self.is_update() && meta.deletion_timestamp.is_some() && held
    }

    /// Yes, as it is.
    pub(super) fn allow(&self) -> AdmissionResponse {
        AdmissionResponse::from(&self.request)
    }

    /// No: these fields are wrong.
    pub(super) fn refuse(&self, refused: &[Refusal]) -> AdmissionResponse {
        let told: Vec<String> = refused.iter().map(Refusal::to_string).collect();
        self.refuse_with(&told)
    }

    /// No: this is wrong.
    pub(super) fn refuse_with(&self, told: &[String]) -> AdmissionResponse {
        let told = match told {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let (kind, group) = (self.kind.name(), names::GROUP);
        let text = format!("{kind}.{group} {:?} is invalid: {told}", self.name());
        self.deny(&text, "Invalid", 422)
    }

    /// No: it is being deleted.
    pub(super) fn refuse_terminating(&self) -> AdmissionResponse {
        let resource = format!("{}s.{}", self.kind.singular(), names::GROUP);
        let text = format!(
            "{resource} {:?} is forbidden: cannot update a terminating {}",
            self.name(),
            self.kind.short()
        );
        self.deny(&text, "Forbidden", 403)
    }

    fn deny(&self, text: &str, reason: &str, code: u16) -> AdmissionResponse {
        let mut response = self.allow().deny(text);
        response.result = Status::failure(text, reason).with_code(code);
        response
    }
}
