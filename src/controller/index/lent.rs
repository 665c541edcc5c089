//! What a workload asks for whose Pod template is elsewhere: a Rollout may name a Deployment whose
//! template its Pods have, and an object of another kind may have it wherever its kind has it.
//!
//! Owns: whose template counts. It is that of a ReplicaSet or Job below the workload, where it stands
//! as on every Pod to come, whatever the shape of the object above. Never does: follow a reference of
//! the object's own.

use std::borrow::Cow;

use ipam::annotation::{AnnotationError, SizeRule};
use ipam::kind;
use ipam::name::Uid;

use super::state::{State, own_subnets};
use crate::controller::workload::{Seen, Wish};

impl State {
    /// What a workload asks for; what the template of its Pods says comes before what it says itself.
    pub(super) fn wish<'s>(
        &'s self,
        seen: &'s Seen,
    ) -> Option<Cow<'s, Result<Wish, AnnotationError>>> {
        let own = || seen.wish.as_ref().map(Cow::Borrowed);
        self.lent_to(seen).map(Cow::Owned).or_else(own)
    }

    /// What the template of its Pods asks for, where another object shows it.
    fn lent_to(&self, seen: &Seen) -> Option<Result<Wish, AnnotationError>> {
        let elsewhere = seen.elsewhere.as_ref()?;
        let wish = match self.shows_template(seen)?.wish.as_ref()? {
            Ok(wish) if wish.is_of_pods => wish,
            Ok(_) => return None,
            Err(error) => return Some(Err(error.clone())),
        };
        if matches!(wish.rule, SizeRule::Flexible(_)) && !elsewhere.is_scalable {
            return Some(Err(AnnotationError::NotScalable(seen.id.to_string())));
        }
        Some(Ok(Wish {
            // That of the object below is of its own Pods alone.
            selector: elsewhere.selector.clone().unwrap_or_default(),
            ..wish.clone()
        }))
    }

    /// The one below a workload without a template that has the template of its Pods: of those that
    /// want some the last that was made, and where none does, the last.
    pub(super) fn shows_template(&self, seen: &Seen) -> Option<&Seen> {
        seen.elsewhere.as_ref()?;
        let below = self.children.get(&seen.id.uid)?.iter();
        let below = below.filter_map(|uid| self.workloads.get(uid));
        below
            .filter(|below| self.is_below_another(below))
            .max_by_key(|below| (below.replicas > 0, below.created))
    }

    /// The workload above that has no template, and may have the one that `seen` shows.
    pub(super) fn shown_to(&self, seen: &Seen) -> Option<Uid> {
        let owner = seen.controller.as_ref()?;
        let (group, _) = kind::group_version(&owner.api_version);
        self.kinds.other(group, &owner.kind)?;
        self.is_below_another(seen)
            .then(|| Uid::from(owner.uid.as_str()))
    }

    /// The subnets that a workload asks for.
    pub(super) fn subnets_of(&self, seen: &Seen) -> Vec<String> {
        let mut all = own_subnets(seen.wish.as_ref());
        all.extend(own_subnets(self.lent_to(seen).as_ref()));
        all
    }

    /// Who asks for the subnet `name`, by what it says itself or by a template that another shows.
    pub(super) fn asking_for(&self, name: &str) -> impl Iterator<Item = &Uid> {
        let own = self.asking.get(name);
        let lent = self.lent.get(name).into_iter().flatten();
        let mut lent: Vec<&Uid> = lent
            .map(|(owner, _)| owner)
            .filter(|owner| own.is_none_or(|own| !own.contains(*owner)))
            .collect();
        lent.dedup();
        own.into_iter().flatten().chain(lent)
    }
}
