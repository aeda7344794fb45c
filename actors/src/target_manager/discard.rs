//! unreadable → (none): a record that cannot be read is removed by its name. It is no target, so that nothing is decided
//! on it: one conditional removal of what was seen to be unreadable, and of nothing that came after it.

use loom_protocol::{TargetId, WireError, names};
use ractor::RpcReplyPort;

use super::ASK_AGAIN;
use super::bucket::TargetBucket;
use super::command::not_found;
use super::directory::TargetDirectory;
use super::env::Env;
use crate::nats::error::StoreErrorKind;

/// Removes what lies unreadable under a name; answered when it is gone.
pub(super) fn discard(env: &mut Env, name: String, reply: RpcReplyPort<Result<(), WireError>>) {
    if let Err(refusal) = env.may_write(&name) {
        let _ = reply.send(Err(refusal));
        return;
    }
    let directory = env.args.directory.clone();
    let bucket = env.bucket.clone();
    let write_id = format!("{}/{}", env.args.epoch, TargetId::generate());
    env.spawn(async move {
        let discarded = remove(&bucket, &directory, &name, &write_id).await;
        let _ = reply.send(discarded);
    });
}

async fn remove(
    bucket: &TargetBucket,
    directory: &TargetDirectory,
    name: &str,
    write_id: &str,
) -> Result<(), WireError> {
    let revision = directory.unreadable_revision(name);
    let revision = revision.ok_or_else(|| not_found(name))?;
    let key = names::target_key(name);
    match bucket.write(&key, None, revision, write_id).await {
        Ok(_) => {
            directory.forget_unreadable(name);
            tracing::warn!(key, revision, "a record that could not be read was removed");
            Ok(())
        }
        Err(error) => {
            let why = match error.kind() {
                StoreErrorKind::Conflict => "it was changed meanwhile".to_owned(),
                _ => error.reason(),
            };
            let text = format!(
                "what lies under the name {name} is not removed, or perhaps: {why}; look, and try again"
            );
            Err(WireError::unavailable(text, ASK_AGAIN))
        }
    }
}
