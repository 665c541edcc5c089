//! The definitions of our kinds, as the API server gets them.
//!
//! Owns: what every definition shares, and the differences from what `kube`'s derive writes. Never
//! does: IO; `orbweaver crds` writes the files. Invariant: what `definitions` returns is the same
//! at every call, so the committed files can be compared byte for byte.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;

use super::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, endpoint};

/// A schema of ours can't be said in the form the API server takes: a mistake in this program.
#[derive(Debug, thiserror::Error)]
#[error("the schema of {kind} has no form the API server takes")]
pub struct SchemaError {
    kind: String,
    source: serde_json::Error,
}

/// The four definitions, by name.
///
/// # Errors
///
/// [`SchemaError`], which the tests rule out for the kinds of this version.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, SchemaError> {
    let mut all = vec![
        endpoint::definition()?,
        SpiderIPPool::crd(),
        SpiderReservedIP::crd(),
        SpiderSubnet::crd(),
    ];
    for definition in &mut all {
        for version in &mut definition.spec.versions {
            if let Some(schema) = version
                .schema
                .as_mut()
                .and_then(|s| s.open_api_v3_schema.as_mut())
            {
                // An object without a spec can be stored by a program that writes no schema of
                // ours; requiring the spec would only keep its finalizer from being removed.
                schema.required = None;
                tidy(schema);
                if let Some(spec) = schema.properties.as_mut().and_then(|p| p.get_mut("spec")) {
                    refuse_unknown(spec);
                }
            }
        }
    }
    Ok(all)
}

/// The schema of a type, by the settings `kube`'s derive uses.
pub(super) fn schema_of<T: JsonSchema>() -> Result<JSONSchemaProps, SchemaError> {
    let generator = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator();
    serde_json::to_value(generator.into_root_schema_for::<T>())
        .and_then(serde_json::from_value)
        .map_err(|source| SchemaError {
            kind: T::schema_name().into_owned(),
            source,
        })
}

/// Has the API server tell a person of a key that a spec doesn't have: a mistyped `excludeIPs` would
/// otherwise pass, and give out what it was meant to hold back. A status keeps the keys of others.
fn refuse_unknown(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_preserve_unknown_fields = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        refuse_unknown(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        refuse_unknown(items);
    }
}

/// Makes a schema say what we mean, at every level.
///
/// * Nothing is nullable: an explicit null then counts as absent, and gets the default.
/// * A description is one line: doc comments are broken where the source's margin is.
/// * No title: it would repeat names of Rust types.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    if let Some(text) = &mut schema.description {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}
