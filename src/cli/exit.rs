//! How a command ends: 0 done, 1 the work failed, 2 usage, 3 unreachable, 130 interrupted.

use std::fmt;
use std::io;
use std::process::ExitCode;

use loom_protocol::ErrorCode;
use loom_protocol::text::escaped_lines as block;

use super::terminal::beside;
use crate::api_client::ApiError;
use crate::coordinator::UpError;

/// What stands at the end of `--help`.
pub const HELP: &str = "\
Exit codes: 0 done; 1 the work failed (or the coordinator has a defect); 2 the command line, the
configuration or the request has to be mended; 3 the coordinator or NATS is not there, or not yet;
4 (`loom agent run`) another run of the same --guid is the agent now; 130 interrupted.";

/// What a command gives.
pub type CliResult<T = ()> = Result<T, CliError>;

/// Why a command did not end well.
#[derive(Debug)]
pub enum CliError {
    /// The work failed; what there is to say has been said. 1
    WorkFailed,
    /// Something else failed. 1
    Failed(String),
    /// Another command line, configuration or request would do. 2
    Usage(String),
    /// The coordinator refused the request. 1, 2 or 3, as its code says
    Refused(ErrorCode, String),
    /// Not now; later the same command may do. 3
    Unreachable(String),
    /// What there is to say has been said, of each of several; ends like the first of those that were refused.
    Noted(Box<CliError>),
    /// Interrupted by the user; what there is to say has been said. 130
    Interrupted,
    /// Whoever read our output has gone. 0
    ClosedPipe,
}

impl CliError {
    /// The number that the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Interrupted => 130,
            Self::WorkFailed | Self::Failed(_) | Self::Refused(ErrorCode::Internal, _) => 1,
            Self::Refused(code, _) if code.is_transient() => 3,
            Self::Unreachable(_) => 3,
            Self::Usage(_) | Self::Refused(..) => 2,
            Self::Noted(first) => first.exit_code(),
        }
    }

    /// The same as a code of the wire.
    fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(code, _) => *code,
            Self::Usage(_) => ErrorCode::InvalidRequest,
            Self::Unreachable(_) => ErrorCode::Unavailable,
            Self::Noted(first) => first.code(),
            Self::WorkFailed | Self::Failed(_) | Self::ClosedPipe | Self::Interrupted => {
                ErrorCode::Internal
            }
        }
    }

    /// Says on stderr what went wrong, and gives the code to end with.
    pub fn report(&self, json: bool) -> ExitCode {
        let message = self.to_string();
        if !message.is_empty() {
            if json {
                let error = serde_json::json!({"error": message, "code": self.code()});
                beside(&error.to_string());
            } else {
                beside(&format!("loom: {}", block(&message)));
            }
        }
        ExitCode::from(self.exit_code())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkFailed | Self::ClosedPipe | Self::Interrupted | Self::Noted(_) => Ok(()),
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Refused(_, text)
            | Self::Unreachable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::BadUrl(text) => Self::Usage(text),
            ApiError::Refused(error) => Self::Refused(error.code, error.message),
            ApiError::Unreachable(text)
            | ApiError::InDoubt(text)
            | ApiError::NotACoordinator(text) => Self::Unreachable(text),
        }
    }
}

impl From<crate::settings::SettingsError> for CliError {
    fn from(error: crate::settings::SettingsError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<UpError> for CliError {
    /// A coordinator that does not come up is not there (3): NATS, the port or the ownership may be
    /// free later. Only where there is nowhere to keep data has the configuration to be mended.
    fn from(error: UpError) -> Self {
        let text = error.to_string();
        match error {
            UpError::NoDataDirectory => Self::Usage(text),
            _ => Self::Unreachable(text),
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_contract() {
        let refused = |code| CliError::Refused(code, String::new()).exit_code();
        assert_eq!(CliError::WorkFailed.exit_code(), 1);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::Unreachable(String::new()).exit_code(), 3);
        assert_eq!(CliError::ClosedPipe.exit_code(), 0);
        let noted = CliError::Noted(Box::new(CliError::Unreachable("gone".into())));
        assert_eq!((noted.exit_code(), noted.to_string().as_str()), (3, ""));
        assert_eq!(refused(ErrorCode::NotFound), 2);
        assert_eq!(refused(ErrorCode::TerminalState), 2);
        assert_eq!(refused(ErrorCode::Unauthorized), 2);
        assert_eq!(refused(ErrorCode::Overloaded), 3);
        assert_eq!(refused(ErrorCode::Unavailable), 3);
        assert_eq!(refused(ErrorCode::Internal), 1);
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CliError::from(pipe).exit_code(), 0);
    }
}
