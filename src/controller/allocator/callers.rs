//! Who calls: the node whose agent a token is of, by the word of the API server.
//!
//! Owns: the questions to it, asked once a token and kept for a moment. Never does: keep a token.
//! Invariant: a token counts if it was made for the allocator, for the agents' account, and for a
//! Pod or node; the node is the one that the API server bound it to.

use std::time::Duration;

use ipam::name::NodeName;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::allocator::announce::AUDIENCE;
use crate::error::ErrorChain;
use crate::kube_io::memo::{Age, Memo};

/// How long the API server's word is kept, also that a token is no good.
const KEEP: Duration = Duration::from_secs(120);
/// Most questions to the API server at once; with [`KEEP`] the bound of what strangers can have kept.
const REVIEWS: usize = 8;
/// Longest wait for an answer.
const REVIEW_MAX: Duration = Duration::from_secs(5);
/// Where the API server says which node a token is bound to.
const NODE: &str = "authentication.kubernetes.io/node-name";

type Fingerprint = [u8; 32];

/// The callers known.
pub(crate) struct Callers {
    client: Client,
    agents: String,
    known: Memo<Fingerprint, Result<NodeName, String>>,
    reviews: Semaphore,
}

impl Callers {
    /// `agents` is the account whose tokens count.
    pub(crate) fn new(client: Client, agents: String) -> Self {
        Self {
            client,
            agents,
            known: Memo::default(),
            reviews: Semaphore::new(REVIEWS),
        }
    }

    /// The node whose agent shows this token.
    ///
    /// Errors: why it is nobody's, or why that can't be told.
    pub(super) async fn node_of(&self, token: &str) -> Result<NodeName, String> {
        let fingerprint: Fingerprint = Sha256::digest(token).into();
        let review = self.review(token);
        self.known
            .get(&fingerprint, Age::Within(KEEP), review)
            .await?
    }

    /// Forgets what is kept no longer.
    pub(super) fn sweep(&self) {
        self.known.prune(Age::Within(KEEP));
    }

    async fn review(&self, token: &str) -> Result<Result<NodeName, String>, String> {
        // Fails only if the semaphore is closed, which nobody does.
        let _permit = self.reviews.acquire().await;
        let asked = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            status: None,
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = timeout(REVIEW_MAX, api.create(&params, &asked)).await;
        let answer = answer
            .map_err(|_| "the API server did not say whose token it is".to_owned())?
            .map_err(|error| format!("the token could not be reviewed: {}", ErrorChain(&error)))?;
        let node = node_of(answer.status.unwrap_or_default(), &self.agents);
        if let Err(why) = &node {
            tracing::warn!(because = why, "a caller of the allocator is no agent");
        }
        Ok(node)
    }
}

fn node_of(status: TokenReviewStatus, agents: &str) -> Result<NodeName, String> {
    let ours = |audiences: Vec<String>| audiences.iter().any(|one| one == AUDIENCE);
    if status.authenticated != Some(true) || !status.audiences.is_some_and(ours) {
        let why = status.error.unwrap_or_default();
        return Err(format!("the token is not good for {AUDIENCE}: {why}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != agents {
        return Err(format!("the token is of {name}, and agents are {agents}"));
    }
    let node = user.extra.and_then(|mut extra| extra.remove(NODE));
    let node = node.and_then(|values| values.into_iter().next());
    node.map(|node| NodeName::new(&node)).ok_or_else(|| {
        "the token is bound to no node: Kubernetes 1.30 or later binds an agent's by itself"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    const AGENTS: &str = "system:serviceaccount:kube-system:orbweaver-agent";

    fn good() -> TokenReviewStatus {
        TokenReviewStatus {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            authenticated: Some(true),
            error: None,
            user: Some(UserInfo {
                username: Some(AGENTS.to_owned()),
                extra: Some(BTreeMap::from([(NODE.to_owned(), vec!["n1".to_owned()])])),
                ..UserInfo::default()
            }),
        }
    }

    #[test]
    fn a_token_counts_only_with_all_that_makes_it_an_agents() {
        assert_eq!(node_of(good(), AGENTS), Ok(NodeName::new("n1")));
        let spoilt: [fn(&mut TokenReviewStatus); 5] = [
            |status| status.authenticated = Some(false),
            |status| status.audiences = Some(vec!["https://kubernetes.default".to_owned()]),
            |status| status.audiences = None,
            |status| {
                let user = status.user.as_mut().unwrap();
                user.username = Some("system:serviceaccount:shop:orbweaver-agent".to_owned());
            },
            |status| status.user.as_mut().unwrap().extra = None,
        ];
        for spoil in spoilt {
            let mut status = good();
            spoil(&mut status);
            let shown = format!("{status:?}");
            assert!(node_of(status, AGENTS).is_err(), "{shown}");
        }
    }
}
