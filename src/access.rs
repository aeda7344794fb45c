//! Who may do what: pure, and asked at one place, before a verb is carried out.
//!
//! A door makes a [`Caller`]; what the service does for a verb takes an [`Allowed`], which only [`Caller::allow`] makes. So
//! nothing can be done for somebody who has not been asked about. Today both doors make [`Caller::everybody`].

use std::borrow::Cow;
use std::sync::Arc;

use loom_protocol::verbs::{Role, Scope};
use loom_protocol::{ErrorCode, ProjectId, VerbName, WireError};

/// By which door somebody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A request over NATS.
    Nats,
    /// A request over REST.
    Rest,
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// All of them.
    pub const ALL: Self = Self((1 << Role::ALL.len()) - 1);

    /// These, and one more.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | (1 << role as u8))
    }

    /// Whether it is one of them.
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }
}

/// In which projects somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// In all, also in those that are not there yet.
    All,
    /// In these.
    These(Arc<[ProjectId]>),
}

/// Somebody who asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, for the log.
    pub name: Cow<'static, str>,
    /// By which door.
    pub door: Door,
    /// What he may do.
    pub roles: Roles,
    /// Where.
    pub reach: Reach,
}

impl Caller {
    /// Anybody who was let in: he may do everything.
    pub const fn everybody(door: Door) -> Self {
        Self {
            name: Cow::Borrowed("everybody"),
            door,
            roles: Roles::ALL,
            reach: Reach::All,
        }
    }

    /// Asks whether he may do what a verb does, in a project, or in all of them where none is named.
    ///
    /// # Errors
    /// `forbidden`, with what he lacks.
    pub fn allow(self, verb: VerbName, project: Option<ProjectId>) -> Result<Allowed, WireError> {
        if may(&self, verb, project.as_ref()) {
            return Ok(Allowed {
                caller: self,
                verb,
                project,
            });
        }
        let role = verb.row().role.as_str();
        let place = project.map_or_else(
            || "every project".to_owned(),
            |project| format!("project {project}"),
        );
        Err(WireError::new(
            ErrorCode::Forbidden,
            format!(
                "{} may not do {verb} in {place}: it takes the role {role} there; ask the operator for it",
                self.name
            ),
        ))
    }
}

/// Somebody who may do what a verb does, in one project or in all: the first argument of whatever the service does for it.
#[derive(Debug, Clone)]
pub struct Allowed {
    caller: Caller,
    verb: VerbName,
    project: Option<ProjectId>,
}

impl Allowed {
    /// Who it is.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What he may do.
    pub const fn verb(&self) -> VerbName {
        self.verb
    }

    /// Where; `None`: everywhere.
    pub const fn project(&self) -> Option<&ProjectId> {
        self.project.as_ref()
    }
}

/// Whether somebody may do what a verb does, in a project, or in all of them where none is named. What a verb says of the
/// coordinator as a whole is no project's. The role `admin` is enough for everything, everywhere.
pub fn may(caller: &Caller, verb: VerbName, project: Option<&ProjectId>) -> bool {
    let row = verb.row();
    let reaches = row.scope == Scope::Coordinator
        || match (&caller.reach, project) {
            (Reach::All, _) => true,
            (Reach::These(projects), Some(project)) => projects.contains(project),
            (Reach::These(_), None) => false,
        };
    caller.roles.has(Role::Admin) || (caller.roles.has(row.role) && reaches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::verbs::VERBS;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    fn project(name: &str) -> ProjectId {
        ProjectId::new(name).unwrap()
    }

    fn projects() -> impl Strategy<Value = Vec<ProjectId>> {
        let all: Vec<ProjectId> = ["a", "b", "c"].map(project).into();
        subsequence(all, 0..=3)
    }

    fn callers() -> impl Strategy<Value = (Caller, Vec<Role>, Option<Vec<ProjectId>>)> {
        let roles = subsequence(Role::ALL.to_vec(), 0..=Role::ALL.len());
        (roles, proptest::option::of(projects())).prop_map(|(roles, reach)| {
            let caller = Caller {
                name: "ada".into(),
                door: Door::Rest,
                roles: roles
                    .iter()
                    .fold(Roles::default(), |set, role| set.with(*role)),
                reach: match &reach {
                    None => Reach::All,
                    Some(projects) => Reach::These(projects.clone().into()),
                },
            };
            (caller, roles, reach)
        })
    }

    fn verbs() -> impl Strategy<Value = VerbName> {
        select(VERBS).prop_map(|row| row.verb)
    }

    fn places() -> impl Strategy<Value = Option<ProjectId>> {
        proptest::option::of(select(vec!["a", "b", "c", "d"]).prop_map(project))
    }

    proptest! {
        #[test]
        fn somebody_may_do_what_his_roles_say_where_his_projects_say((caller, roles, reach) in callers(), verb in verbs(), place in places()) {
            let row = verb.row();
            let is_there = match (&reach, &place) {
                (None, _) => true,
                (Some(projects), Some(place)) => projects.contains(place),
                (Some(_), None) => false,
            };
            let expected = roles.contains(&Role::Admin)
                || (roles.contains(&row.role) && (is_there || row.scope == Scope::Coordinator));
            prop_assert_eq!(may(&caller, verb, place.as_ref()), expected);
            match caller.clone().allow(verb, place.clone()) {
                Ok(allowed) => {
                    prop_assert!(expected);
                    prop_assert_eq!(allowed.project(), place.as_ref());
                    prop_assert_eq!((allowed.caller(), allowed.verb()), (&caller, verb));
                }
                Err(error) => {
                    prop_assert!(!expected);
                    prop_assert_eq!(error.code, ErrorCode::Forbidden);
                    prop_assert!(error.message.contains(row.role.as_str()));
                }
            }
        }

        #[test]
        fn another_role_or_project_takes_nothing_away((caller, ..) in callers(), more in select(Role::ALL.to_vec()), verb in verbs(), place in places()) {
            let before = may(&caller, verb, place.as_ref());
            let with_role = Caller { roles: caller.roles.with(more), ..caller.clone() };
            prop_assert!(!before || may(&with_role, verb, place.as_ref()));
            let everywhere = Caller { reach: Reach::All, ..caller };
            prop_assert!(!before || may(&everywhere, verb, place.as_ref()));
        }

        #[test]
        fn who_may_do_it_everywhere_may_do_it_anywhere((caller, ..) in callers(), verb in verbs(), place in places()) {
            prop_assert!(!may(&caller, verb, None) || may(&caller, verb, place.as_ref()));
        }

        #[test]
        fn everybody_may_do_everything(verb in verbs(), place in places(), door in select(vec![Door::Nats, Door::Rest])) {
            prop_assert!(may(&Caller::everybody(door), verb, place.as_ref()));
        }

        #[test]
        fn who_has_no_role_may_do_nothing(verb in verbs(), place in places()) {
            let nobody = Caller { roles: Roles::default(), ..Caller::everybody(Door::Nats) };
            prop_assert!(!may(&nobody, verb, place.as_ref()));
        }
    }
}
