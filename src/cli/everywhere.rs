//! Listings of things that do not say of which project they are: of one project, or of all with the project beside each.

use loom_protocol::ProjectId;
use loom_protocol::rest::PageInfo;
use serde::Serialize;
use serde_json::Value;

use super::exit::{CliError, CliResult};
use super::pages::{Page, Wanted, projects};
use crate::api_client::ApiClient;

/// What was listed.
#[derive(Debug)]
pub(super) struct Located<T> {
    /// The things.
    pub items: Vec<T>,
    /// The project of each; nothing where one project was asked.
    pub projects: Vec<ProjectId>,
    /// Where they stand. Over all projects there is no cursor.
    pub info: PageInfo,
}

/// What is listed of one project.
pub(super) fn of_one<P: Page>(mut page: P) -> Located<P::Item> {
    Located {
        items: std::mem::take(page.items()),
        projects: Vec::new(),
        info: std::mem::take(page.info()),
    }
}

/// What is listed of each project that is awake, as many as are wanted of each and of all. `list`: of one; `place`: where
/// a thing stands among all.
pub(super) async fn of_all<P: Page, K: Ord>(
    api: &ApiClient,
    wanted: Wanted,
    list: impl AsyncFn(&ApiClient) -> CliResult<P>,
    place: impl Fn(&P::Item) -> K,
) -> CliResult<Located<P::Item>> {
    let mut info = PageInfo::default();
    let mut found: Vec<(ProjectId, P::Item)> = Vec::new();
    for project in projects(api).await? {
        let mut page = list(&api.of_project(project.clone())).await?;
        info.total += page.info().total;
        info.has_more |= page.info().has_more;
        let items = std::mem::take(page.items());
        found.extend(items.into_iter().map(|item| (project.clone(), item)));
    }
    found.sort_by_key(|(_, item)| place(item));
    if let Wanted::Most(most) = wanted
        && found.len() > most
    {
        found.truncate(most);
        info.has_more = true;
    }
    info.count = found.len();
    let (projects, items) = found.into_iter().unzip();
    Ok(Located {
        items,
        projects,
        info,
    })
}

impl<T: Serialize> Located<T> {
    /// The project of the thing at a place, where all were asked.
    pub fn project(&self, at: usize) -> Option<&str> {
        self.projects.get(at).map(ProjectId::as_str)
    }

    /// The same as the coordinator would answer it: the things under `name`, each with its project where all were asked.
    pub fn answer(&self, name: &str) -> CliResult<Value> {
        let failed = |error: serde_json::Error| CliError::Failed(error.to_string());
        let mut answer = serde_json::to_value(&self.info).map_err(failed)?;
        let mut items = serde_json::to_value(&self.items).map_err(failed)?;
        let each = items.as_array_mut().into_iter().flatten();
        for (item, project) in each.zip(&self.projects) {
            item["projectId"] = project.as_str().into();
        }
        answer[name] = items;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::rest::WorkPage;
    use loom_protocol::work::sample_item;
    use serde_json::json;

    #[test]
    fn each_thing_has_its_project_where_all_were_asked() {
        let page = WorkPage {
            work_items: vec![sample_item()],
            page: PageInfo::default(),
        };
        let mut located = of_one(page);
        assert_eq!(located.project(0), None);
        located.projects.push(ProjectId::new("shop").unwrap());
        located.info.count = 1;
        let answer = located.answer("workItems").unwrap();
        assert_eq!(
            (&answer["count"], &answer["workItems"][0]["projectId"]),
            (&json!(1), &json!("shop"))
        );
        assert_eq!(located.project(0), Some("shop"));
    }
}
