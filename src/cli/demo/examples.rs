//! The files of `examples/`, as they were when this program was built.
//!
//! Owns: their text, and reading it. Never does: apply them.

use anyhow::Context as _;
use kube::api::DynamicObject;

/// What a reader may apply: a file, as it was when this program was built.
pub(super) struct Example {
    path: &'static str,
    text: &'static str,
}

macro_rules! examples {
    ($($name:ident: $file:literal),* $(,)?) => {
        $(pub(super) const $name: Example = Example {
            path: concat!("examples/", $file),
            text: include_str!(concat!("../../../examples/", $file)),
        };)*

        #[cfg(test)]
        const ALL: &[&str] = &[$($file),*];
    };
}

examples! {
    AUTO: "auto-pool.yaml",
    DUAL: "dual-stack.yaml",
    NARROW: "narrow-subnet.yaml",
    REFUSED: "static-pool-refused.yaml",
    ROUTES: "routes.yaml",
    SEVERAL: "several-interfaces.yaml",
    STATEFUL: "statefulset.yaml",
    STATIC: "static-pool.yaml",
    SUBNETS: "subnets.yaml",
}

/// The objects of the files, in their order.
///
/// Errors: a file is no YAML of Kubernetes objects.
pub(super) fn objects(files: &[&Example]) -> anyhow::Result<Vec<DynamicObject>> {
    let mut all = Vec::new();
    for file in files {
        let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(file.text)
            .with_context(|| format!("{} can't be read", file.path))?;
        all.extend(objects);
    }
    Ok(all)
}

/// The files as kubectl is told them.
pub(super) fn list(files: &[&Example]) -> String {
    let mut words = String::new();
    for file in files {
        words.push_str(" -f ");
        words.push_str(file.path);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_example_has_its_place_in_the_story() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        let files = std::fs::read_dir(folder).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let ours: BTreeSet<String> = ALL.iter().map(|file| (*file).to_owned()).collect();
        assert_eq!(files, ours);
    }
}
