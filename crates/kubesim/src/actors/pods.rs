//! What every controller asks of Pods, and how it makes one.
//!
//! Owns: readiness, availability, templates and owners, pure. Never does: count or decide.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The letters of generated names: no vowels, no look-alikes.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A condition of the Pod.
pub(crate) fn condition<'a>(pod: &'a Pod, of_type: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == of_type)
}

/// The phase, `""` before anybody set it.
pub(crate) fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or_default()
}

/// Whether the Pod has come to an end by itself.
pub(crate) fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody deletes the Pod.
pub(crate) fn terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the Pod counts: neither finished nor going.
pub(crate) fn active(pod: &Pod) -> bool {
    !finished(pod) && !terminating(pod)
}

/// Whether the Pod serves.
pub(crate) fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// The node it is bound to, if it is.
pub(crate) fn node(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref();
    node.filter(|name| !name.is_empty())
}

/// How far a Pod is from having been ready for long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It has.
    Available,
    /// It will have, in this time, if it stays ready.
    In(Duration),
    /// It isn't ready.
    NotReady,
}

/// Whether the Pod has been ready for `min_ready` seconds.
pub(crate) fn availability(pod: &Pod, min_ready: i32, now: Timestamp) -> Availability {
    let Some(condition) = condition(pod, "Ready").filter(|c| c.status == "True") else {
        return Availability::NotReady;
    };
    let wanted = Duration::from_secs(u64::try_from(min_ready).unwrap_or_default());
    if wanted.is_zero() {
        return Availability::Available;
    }
    let since = condition.last_transition_time.as_ref().map_or(now, |t| t.0);
    let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match wanted.checked_sub(lasted) {
        None | Some(Duration::ZERO) => Availability::Available,
        Some(left) => Availability::In(left),
    }
}

/// The Pods that are available, and when the next one will be.
pub(crate) fn count_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready: i32,
    now: Timestamp,
) -> (i32, Option<Duration>) {
    let (mut count, mut next) = (0, None);
    for pod in pods {
        match availability(pod, min_ready, now) {
            Availability::Available => count += 1,
            Availability::In(left) => next = Some(next.map_or(left, |n: Duration| n.min(left))),
            Availability::NotReady => {}
        }
    }
    (count, next)
}

/// How many of the items hold, as Kubernetes counts.
pub(crate) fn count<T>(items: impl IntoIterator<Item = T>, holds: impl Fn(T) -> bool) -> i32 {
    let held = items
        .into_iter()
        .filter_map(|item| holds(item).then_some(()));
    i32::try_from(held.count()).unwrap_or(i32::MAX)
}

/// The reference by which `owner` controls an object.
pub(crate) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A Pod of `template`, without a name.
pub(crate) fn from_template<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
) -> Pod {
    let ours = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.meta().namespace.clone(),
            labels: ours.labels,
            annotations: ours.annotations,
            finalizers: ours.finalizers,
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// As [`from_template`], named as the server would: `prefix`, a dash and five letters.
///
/// Drawn here so that the Event about it can say the name.
pub(crate) fn generated<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    prefix: &str,
    rng: &mut ChaCha8Rng,
) -> Pod {
    let mut pod = from_template(owner, template);
    let letters = (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
    let letters: String = letters.collect();
    pod.metadata.generate_name = Some(format!("{prefix}-"));
    pod.metadata.name = Some(format!("{prefix}-{letters}"));
    pod
}

/// Sets a label.
pub(crate) fn label(meta: &mut ObjectMeta, name: &str, value: &str) {
    let labels = meta.labels.get_or_insert_with(BTreeMap::new);
    labels.insert(name.to_owned(), value.to_owned());
}

/// The value of a label.
pub(crate) fn label_of<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

/// A short word for `bytes`, the same for the same, as in `pod-template-hash`.
///
/// The real one hashes a Go value; whoever depends on the very letters is wrong there too.
pub(crate) fn hash(bytes: &[u8], collisions: i32) -> String {
    let collisions = if collisions > 0 {
        collisions.to_le_bytes().to_vec()
    } else {
        Vec::new()
    };
    let fnv = bytes
        .iter()
        .chain(&collisions)
        .fold(2_166_136_261_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
        });
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    fnv.to_string().bytes().map(letter).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    /// A Pod of `owner` that is in `phase`, ready since the epoch where it runs.
    pub(crate) fn pod<K: Resource<DynamicType = ()>>(owner: &K, name: &str, phase: &str) -> Pod {
        let mut pod = from_template(owner, &PodTemplateSpec::default());
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let ready = PodCondition {
            type_: "Ready".into(),
            status: if phase == "Running" { "True" } else { "False" }.into(),
            last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
            ..PodCondition::default()
        };
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            conditions: Some(vec![ready]),
            ..PodStatus::default()
        });
        pod
    }

    /// An owner with a name.
    pub(crate) fn owner<K: Resource<DynamicType = ()> + Default>(name: &str) -> K {
        let mut owner = K::default();
        owner.meta_mut().name = Some(name.into());
        owner.meta_mut().namespace = Some("ns".into());
        owner.meta_mut().uid = Some(format!("uid-{name}"));
        owner
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let owner: Pod = owner("o");
        let pod = pod(&owner, "a", "Running");
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(availability(&pod, 0, at(0)), Availability::Available);
        let left = Duration::from_secs(7);
        assert_eq!(availability(&pod, 10, at(3)), Availability::In(left));
        assert_eq!(availability(&pod, 10, at(10)), Availability::Available);
        assert_eq!(count_available([&pod], 10, at(3)), (0, Some(left)));
    }

    #[test]
    fn the_same_template_has_the_same_hash_until_names_collide() {
        assert_eq!(hash(b"template", 0), hash(b"template", 0));
        assert_ne!(hash(b"template", 0), hash(b"template", 1));
        assert_ne!(hash(b"template", 0), hash(b"templates", 0));
    }
}
