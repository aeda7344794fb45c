//! Whether an agent could be started: the permissions, and a Job that is only tried.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::call::{Call, Resource, Verb};
use super::cluster::Place;
use super::manifest;
use super::refusal::{Refusal, RefusalKind};
use crate::ProbeError;
use crate::outcome::Probe;

/// What a coordinator has to be allowed to do in the namespace.
const NEEDED: [(Verb, Resource); 11] = [
    (Verb::Create, Resource::Jobs),
    (Verb::Get, Resource::Jobs),
    (Verb::List, Resource::Jobs),
    (Verb::Watch, Resource::Jobs),
    (Verb::Patch, Resource::Jobs),
    (Verb::Delete, Resource::Jobs),
    (Verb::Create, Resource::Secrets),
    (Verb::Update, Resource::Secrets),
    (Verb::List, Resource::Pods),
    (Verb::Watch, Resource::Pods),
    (Verb::Delete, Resource::Pods),
];

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    allowed: bool,
}

impl Shared {
    pub(super) async fn probe(&self, limit: Duration) -> Result<Probe, ProbeError> {
        let place = self.place(None);
        match tokio::time::timeout(limit, self.tried(&place)).await {
            Ok(tried) => tried,
            Err(_) => Err(ProbeError(format!(
                "namespace {:?}: the API server did not answer within {limit:?}; look whether it runs and is reached from here",
                place.namespace
            ))),
        }
    }

    async fn tried(&self, place: &Place) -> Result<Probe, ProbeError> {
        let until = Instant::now() + super::LOOK;
        // The first one alone, so that a cluster that is away is asked once.
        let mut missing = Vec::new();
        let asking = NEEDED.iter().enumerate();
        let (first, rest): (Vec<_>, Vec<_>) = asking.partition(|(place, _)| *place == 0);
        for some in [first, rest] {
            let asked = some
                .into_iter()
                .map(|(_, (verb, resource))| self.is_allowed(place, *verb, *resource, until));
            for answer in join_all(asked).await {
                missing.extend(answer?);
            }
        }
        if !missing.is_empty() {
            return Err(ProbeError(format!(
                "namespace {:?}: these permissions are missing: {}; grant them by a Role and a RoleBinding, as docs/targets.md shows",
                place.namespace,
                missing.join(", ")
            )));
        }
        self.dry_run(place, until).await?;
        let (namespace, image) = (&place.namespace, &self.config.image);
        Ok(Probe {
            seen: format!(
                "namespace {namespace:?} takes Jobs; whether the image {image:?} can be pulled is seen when one starts"
            ),
        })
    }

    /// The permission, in words, where it is missing.
    async fn is_allowed(
        &self,
        place: &Place,
        verb: Verb,
        resource: Resource,
        until: Instant,
    ) -> Result<Option<String>, Refusal> {
        let (name, part) = resource.names();
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": place.namespace,
                "verb": verb.word(),
                "group": resource.group(),
                "resource": name,
                "subresource": part,
            }},
        });
        let call = Call::new(Verb::Create, Resource::AccessReviews).body(&review);
        let review: Review = self.api.object(place, &call, until).await?;
        let words = || format!("{} {}", verb.word(), resource.words());
        Ok((!review.status.allowed).then(words))
    }

    /// Has the server judge a Job without keeping it: the namespace, its quota and its admission rules too.
    async fn dry_run(&self, place: &Place, until: Instant) -> Result<(), Refusal> {
        let job = manifest::trial(&self.config);
        let call = Call::new(Verb::Create, Resource::Jobs)
            .with("dryRun", "All")
            .body(&job);
        match self.api.object::<Job>(place, &call, until).await {
            Ok(_) => Ok(()),
            // Some admission rules can't judge without a real one.
            Err(refusal)
                if refusal.is(RefusalKind::Invalid) && refusal.message.contains("dry run") =>
            {
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }
}
