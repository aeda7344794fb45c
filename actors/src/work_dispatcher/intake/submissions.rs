//! Published work, as it is read from a message.

use std::sync::Arc;

use async_nats::jetstream;
use loom_protocol::work::{RESERVED_FIELDS, Reason, SubmitRequest};
use loom_protocol::{Encoding, Timestamp, WireError, WorkId, names};

use super::{Intake, poison};
use crate::domain::room::Room;
use crate::domain::work;
use crate::work_ledger::Operation;

impl Intake {
    /// What a published submission asks for; `message_id`: its id where it names none.
    pub(super) fn submitted(
        &self,
        encoding: Encoding,
        message: &jetstream::Message,
        message_id: WorkId,
        published: Timestamp,
    ) -> Result<Operation, (Reason, WireError)> {
        let capability = names::capability_of_queue(&message.subject);
        let mut request = Self::read_submission(encoding, message, capability.as_deref())?;
        request.id.get_or_insert_with(|| message_id.to_string());
        request
            .task_id
            .get_or_insert_with(|| message_id.to_string());
        request.offered_at.get_or_insert(published);
        // By the time of its publication: one that waited for us fails by its deadline, as any other does.
        let submission = work::accept(request, self.defaults, "queue", published)
            .and_then(|submission| submission.check_deadline(published).map(|()| submission))
            .map_err(|error| (Reason::Rejected, error))?;
        let room = Room::of(self.nats.max_payload());
        room.check(&submission.record, &self.project)
            .map_err(|error| (Reason::Rejected, error))?;
        Ok(Operation::Create(Arc::new(submission.record)))
    }

    fn read_submission(
        encoding: Encoding,
        message: &jetstream::Message,
        capability: Option<&str>,
    ) -> Result<SubmitRequest, (Reason, WireError)> {
        let mut reserved = None;
        let mut request: SubmitRequest = encoding
            .decode_noting(&message.payload, &mut |field| {
                if RESERVED_FIELDS.contains(&field.as_str()) {
                    reserved = Some(field);
                }
            })
            .map_err(poison)?;
        if let Some(field) = reserved {
            let text = format!("{field} is reserved and does not work yet; leave it out");
            return Err((Reason::Rejected, WireError::invalid(text)));
        }
        let Some(capability) = capability else {
            let text = "the last part of the subject is no capability";
            return Err((Reason::Rejected, WireError::invalid(text)));
        };
        if request.capability.is_empty() {
            capability.clone_into(&mut request.capability);
        }
        if request.capability != capability {
            let text = format!(
                "the item is of capability {:?}, but its subject of {capability:?}",
                request.capability
            );
            return Err((Reason::Rejected, WireError::invalid(text)));
        }
        Ok(request)
    }
}
