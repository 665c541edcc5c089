//! Workloads of the kinds that an operator names, whatever their shape.
//!
//! Owns: where such an object says how many Pods it wants, which ones, and from which template.
//! Never does: IO. A kind says it by its subresource `scale`, which is two paths in its objects;
//! a template is looked for where every known kind has it, at `spec.template`; where it is not there,
//! what is below the object shows it (`index/lent.rs`).

use ipam::affinity::Selector;
use ipam::kind::OtherKind;
use ipam::name::{Uid, WorkloadId};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Workload;
use crate::api::convert;

/// Where the objects of a kind say what their subresource `scale` would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The number of Pods; `None` for a kind that has none to follow.
    replicas: Option<String>,
    /// The selector as a text.
    selector: Option<String>,
}

impl Layout {
    /// That of a kind without a definition, served by an API server of its own: the path by
    /// convention.
    pub fn conventional() -> Self {
        Self {
            replicas: Some("/spec/replicas".to_owned()),
            selector: None,
        }
    }

    /// What the definition says of `version`; `None` if it is not served.
    pub fn of(definition: &CustomResourceDefinition, version: &str) -> Option<Self> {
        let versions = &definition.spec.versions;
        let version = versions.iter().find(|v| v.name == version && v.served)?;
        let scale = version.subresources.as_ref().and_then(|s| s.scale.as_ref());
        let pointer = |path: &str| path.replace('.', "/");
        Some(Self {
            replicas: scale.map(|scale| pointer(&scale.spec_replicas_path)),
            selector: scale.and_then(|scale| scale.label_selector_path.as_deref().map(pointer)),
        })
    }
}

/// An object of such a kind, as far as its pool depends on it.
#[derive(Debug, Clone)]
pub struct Other {
    template: Option<PodTemplateSpec>,
    selector: Option<Selector>,
    replicas: Option<u32>,
}

impl Other {
    /// Reads `object`.
    pub fn read(object: &DynamicObject, layout: &Layout) -> Self {
        let data = &object.data;
        let replicas = layout.replicas.as_deref().map(|at| {
            // Workloads without a number want one Pod.
            let count = data.pointer(at).map_or(Some(1), Value::as_u64);
            u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX)
        });
        Self {
            template: part(data, "/spec/template"),
            selector: selector(data, layout),
            replicas,
        }
    }
}

/// The selector of all its Pods. `spec.selector` comes first: a Rollout's `status.selector` is that
/// of its active Pods alone while it runs two sets side by side.
fn selector(data: &Value, layout: &Layout) -> Option<Selector> {
    let of_spec: Option<LabelSelector> = part(data, "/spec/selector");
    let of_spec = of_spec.and_then(|selector| convert::workload_selector(&selector).ok());
    let of_scale = || {
        let text = data.pointer(layout.selector.as_deref()?)?.as_str()?;
        Selector::parse(text).ok()
    };
    let says = |selector: &Selector| !selector.is_empty();
    of_spec.filter(says).or_else(|| of_scale().filter(says))
}

/// A part of an object, if it has the shape of one.
fn part<T: DeserializeOwned>(data: &Value, at: &str) -> Option<T> {
    serde_json::from_value(data.pointer(at)?.clone()).ok()
}

impl Workload for Other {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.template.as_ref()
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.template.as_mut()
    }

    fn selector(&self) -> Option<&LabelSelector> {
        None
    }

    fn pods(&self) -> Option<Selector> {
        self.selector.clone()
    }

    fn replicas(&self) -> u32 {
        self.replicas.unwrap_or_default()
    }

    fn is_scalable(&self) -> bool {
        self.replicas.is_some()
    }
}

/// The kind as clients of the API server name it.
pub fn resource(kind: &OtherKind) -> ApiResource {
    let named = GroupVersionKind::gvk(&kind.group, &kind.version, &kind.kind);
    ApiResource::from_gvk_with_plural(&named, &kind.resource)
}

/// Who `object` is.
pub fn id(object: &DynamicObject, kind: &OtherKind) -> WorkloadId {
    let uid = Uid::new(object.uid().unwrap_or_default());
    let namespace = object.namespace().unwrap_or_default();
    kind.workload(&namespace, &object.name_any(), uid)
}

/// Leaves of an object what [`Other::read`] reads, whichever layout its kind gets.
pub fn trim(object: &mut DynamicObject) {
    let spec = object.data.pointer_mut("/spec/template/spec");
    if let Some(Value::Object(spec)) = spec {
        spec.retain(|key, _| key == "hostNetwork");
        // A Pod's spec has containers, or it is none.
        spec.insert("containers".to_owned(), Value::Array(vec![]));
    }
}

#[cfg(test)]
mod tests {
    use ipam::annotation::{AnnotationError, SizeRule};
    use serde_json::json;

    use super::*;
    use crate::controller::workload::{Seen, seen_as};

    fn rollout() -> OtherKind {
        OtherKind {
            group: "argoproj.io".to_owned(),
            version: "v1alpha1".to_owned(),
            kind: "Rollout".to_owned(),
            resource: "rollouts".to_owned(),
        }
    }

    fn definition(subresources: &Value) -> CustomResourceDefinition {
        let version = |name: &str, served: bool| {
            json!({
                "name": name, "served": served, "storage": served, "subresources": subresources,
            })
        };
        serde_json::from_value(json!({
            "metadata": {"name": "rollouts.argoproj.io"},
            "spec": {
                "group": "argoproj.io", "scope": "Namespaced",
                "names": {"kind": "Rollout", "plural": "rollouts"},
                "versions": [version("v1alpha1", true), version("v1", false)],
            },
        }))
        .unwrap()
    }

    fn scaled() -> Layout {
        let scale = json!({"scale": {
            "specReplicasPath": ".spec.size.pods", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }});
        Layout::of(&definition(&scale), "v1alpha1").unwrap()
    }

    fn seen(mut spec: Value, annotations: &Value, layout: &Layout) -> Seen {
        let status = spec["status"].take();
        let mut object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": annotations},
            "spec": spec, "status": status,
        }))
        .unwrap();
        trim(&mut object);
        let other = Other::read(&object, layout);
        let id = id(&object, &rollout());
        seen_as(id, &object.metadata, &other, SizeRule::Flexible(1))
    }

    fn asks() -> Value {
        json!({"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#})
    }

    #[test]
    fn a_definition_says_where_the_number_and_the_selector_are() {
        let found = scaled();
        assert_eq!(found.replicas.as_deref(), Some("/spec/size/pods"));
        assert_eq!(found.selector.as_deref(), Some("/status/selector"));
        let of = |subresources: &Value, version| Layout::of(&definition(subresources), version);
        assert_eq!(
            of(&json!({"status": {}}), "v1alpha1").unwrap().replicas,
            None
        );
        assert_eq!(of(&json!({}), "v1"), None, "it is not served");
        assert_eq!(of(&json!({}), "v2"), None);
    }

    #[test]
    fn number_template_and_annotations_are_read_wherever_they_are() {
        let spec = json!({"size": {"pods": 3}, "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": asks()},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}});
        let of_template = seen(spec, &json!({}), &scaled());
        let wish = of_template.wish.unwrap().unwrap();
        assert_eq!(
            (of_template.replicas, wish.rule),
            (3, SizeRule::Flexible(1))
        );
        assert_eq!(wish.selector.match_labels["app"], "web");
        assert_eq!(of_template.id.to_string(), "Rollout shop/web");

        let own = seen(json!({"template": "none of Pods"}), &asks(), &scaled());
        assert_eq!(own.replicas, 1, "who names no number wants one Pod");
        assert!(own.wish.unwrap().unwrap().selector.is_empty());

        let on_host = json!({"template": {"spec": {"containers": [], "hostNetwork": true}}});
        assert_eq!(seen(on_host, &asks(), &scaled()).wish, None);
        let conventional = seen(json!({"replicas": 5}), &asks(), &Layout::conventional());
        assert_eq!(conventional.replicas, 5);
    }

    #[test]
    fn the_selector_of_the_spec_comes_before_that_of_scale_and_that_before_the_template_s_labels() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}});
        let selector = |spec: Value| {
            let seen = seen(spec, &asks(), &scaled());
            seen.wish.unwrap().unwrap().selector.match_labels
        };
        let active = json!({"selector": "app=web,hash=1"});
        let all = json!({"matchLabels": {"role": "front"}});
        let both = selector(json!({"template": template, "selector": all, "status": active}));
        assert_eq!(both.into_keys().collect::<Vec<_>>(), ["role"]);
        let scale = selector(json!({"template": template, "selector": {}, "status": active}));
        assert_eq!(scale.into_keys().collect::<Vec<_>>(), ["app", "hash"]);
        for status in [
            json!({}),
            json!({"selector": ""}),
            json!({"selector": "a like b"}),
        ] {
            let rest = selector(json!({"template": template, "status": status}));
            assert_eq!(rest.into_keys().collect::<Vec<_>>(), ["app"]);
        }
    }

    #[test]
    fn a_kind_that_does_not_scale_needs_a_fixed_number() {
        let layout = Layout::of(&definition(&json!({})), "v1alpha1").unwrap();
        let wish = seen(json!({"replicas": 3}), &asks(), &layout).wish.unwrap();
        let told = AnnotationError::NotScalable("Rollout shop/web".to_owned());
        assert_eq!(wish, Err(told));
        let mut fixed = asks();
        fixed["ipam.spidernet.io/ippool-ip-number"] = json!("4");
        let wish = seen(json!({}), &fixed, &layout).wish.unwrap().unwrap();
        assert_eq!(wish.rule, SizeRule::Fixed(4));
    }
}
