//! The REST door: JSON over HTTP, thin over the service layer.
//!
//! Whatever comes in, JSON goes out: an unknown path, a wrong method, a broken body and a panic of
//! ours answer with the same error object as a refusal of the service.
//!
//! | module | what it holds |
//! |---|---|
//! | [`call`] | a request, taken apart: project, id, query, body |
//! | [`error`] | refusals as answers |
//! | [`access_guard`] | who is let in, and how many at a time |
//! | [`serve`](mod@serve) | connections |
//! | [`outgoing`] | how much of answers may wait for readers |
//! | [`waiting`] | what is said before the coordinator serves |
//! | [`agents`], [`work`], [`dead_letters`], [`targets`], [`spin_ups`], [`events`], [`system`], [`store`] | the paths |

pub mod access_guard;
pub mod agents;
mod batch;
pub mod call;
pub mod dead_letters;
pub mod error;
pub mod events;
pub mod outgoing;
pub mod serve;
pub mod spin_ups;
pub mod store;
pub mod system;
pub mod targets;
pub mod waiting;
pub mod work;

use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Extension, Router};
use loom_protocol::verbs::{Method, VERBS, Verb};
use loom_protocol::{ErrorCode, VerbName, WireError};

pub use serve::{BindError, bind, serve};
pub use waiting::Replaceable;

use self::call::Reading;
use crate::service::Service;
use crate::settings::ApiSettings;
use access_guard::AccessGuard;
use error::RestError;
use outgoing::{BUDGET, Budget};

/// Every path of the door.
pub fn router(service: Service, settings: &ApiSettings) -> Router {
    let (permits, retry_after) = service.admission();
    let access_guard = AccessGuard::new(settings, permits, retry_after);
    let api = api().with_state(service.clone());
    let inside = Router::new()
        .nest("/p/{project}", api.clone())
        .merge(api)
        .layer(from_fn_with_state(service.clone(), read_in_turn))
        .layer(map_response_with_state(service.clone(), explain))
        .layer(from_fn_with_state(Budget::new(BUDGET), outgoing::charge));
    let outside = Router::new()
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .with_state(service);
    access_guard::layer(inside, outside, Arc::new(access_guard))
}

/// Where something is not possible because the whole coordinator cannot serve, the answer says why.
async fn explain(State(service): State<Service>, response: Response) -> Response {
    match response.extensions().get::<WireError>() {
        Some(error) if error.code == ErrorCode::Unavailable => {
            RestError::from(service.explained(error.clone())).into_response()
        }
        _ => response,
    }
}

/// A large body is read in a turn of its own, which ends when that is done (`call.rs`), or with the answer.
async fn read_in_turn(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Response {
    let size = request.body().size_hint().exact().unwrap_or_default();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match service.turn_for(size).await {
        Ok(turn) => {
            let reading = Reading::in_turn(turn);
            request.extensions_mut().insert(reading.clone());
            let response = next.run(request).await;
            drop(reading);
            response
        }
        Err(error) => RestError::from(error).into_response(),
    }
}

/// The paths of the table of verbs.
fn api() -> Router<Service> {
    let mut api = Router::new();
    for verb in VERBS {
        if let (Some(route), Some(handler)) = (verb.route, handler(verb)) {
            // By this what asks is let in: see `call`.
            let known = Extension(verb.verb);
            api = api.route(route.path, handler.route_layer(known));
        }
    }
    api
}

/// What answers a verb; `None` where REST does not have it.
fn handler(verb: &Verb) -> Option<MethodRouter<Service>> {
    let method = match verb.route?.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    };
    Some(match verb.verb {
        VerbName::AgentsList => on(method, agents::list),
        VerbName::AgentsGet => on(method, agents::show),
        VerbName::AgentsShutdown => on(method, agents::shutdown),
        VerbName::AgentsShutdownBatch => on(method, agents::shutdown_batch),
        VerbName::AgentsResume => on(method, agents::resume),
        VerbName::GcReport => on(method, agents::gc_report),
        VerbName::GcRun => on(method, agents::gc_run),
        VerbName::WorkSubmit => on(method, work::submit),
        VerbName::WorkGet => on(method, work::show),
        VerbName::WorkList => on(method, work::list),
        VerbName::WorkCancel => on(method, work::cancel),
        VerbName::WorkCancelBatch => on(method, work::cancel_batch),
        VerbName::WorkExplain => on(method, work::explain),
        VerbName::QueueInfo => on(method, system::queue),
        VerbName::QueuePurge => on(method, system::purge),
        VerbName::DlqList => on(method, dead_letters::list),
        VerbName::DlqGet => on(method, dead_letters::show),
        VerbName::DlqRetry => on(method, dead_letters::retry),
        VerbName::DlqRetryBatch => on(method, dead_letters::retry_batch),
        VerbName::DlqDiscard => on(method, dead_letters::discard),
        VerbName::TargetsList => on(method, targets::list),
        VerbName::TargetsGet => on(method, targets::show),
        VerbName::TargetsRegister => on(method, targets::register),
        VerbName::TargetsUpdate => on(method, targets::update),
        VerbName::TargetsRemove => on(method, targets::remove),
        VerbName::TargetsEnable => on(method, targets::enable),
        VerbName::TargetsDisable => on(method, targets::disable),
        VerbName::TargetsTest => on(method, targets::test),
        VerbName::TargetsDisableBatch => on(method, targets::disable_batch),
        VerbName::SpinUpTrigger => on(method, spin_ups::trigger),
        VerbName::SpinUpStatus => on(method, spin_ups::show),
        VerbName::SpinUpList => on(method, spin_ups::list),
        VerbName::Stats => on(method, system::stats),
        VerbName::Projects => on(method, system::projects),
        VerbName::Info => on(method, system::info),
        VerbName::Status => on(method, system::status),
        VerbName::Metrics => on(method, system::metrics),
        VerbName::Events => on(method, events::follow),
        VerbName::Store => on(method, store::show),
        VerbName::StoreLost => on(method, store::lost),
        VerbName::StoreAccept => on(method, store::accept),
        VerbName::AgentsRegister
        | VerbName::AgentsHeartbeat
        | VerbName::AgentsDeregister
        | VerbName::WorkClaim
        | VerbName::WorkStart
        | VerbName::WorkProgress
        | VerbName::WorkComplete
        | VerbName::WorkFail
        | VerbName::WorkRelease
        | VerbName::WorkStopped => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_table_is_answered_and_no_two_are_in_each_others_way() {
        for verb in VERBS {
            assert_eq!(
                handler(verb).is_some(),
                verb.route.is_some(),
                "{}",
                verb.name
            );
        }
        let _two_handlers_of_one_path_and_method_would_panic = api();
    }
}
