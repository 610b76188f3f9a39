//! Paging: which page of a list of models was asked for, by the parameters of each dialect.
//!
//! Promises: without a parameter the whole list is returned. Pages are identified by the id at their edge, so a model
//! that is added or removed between two of them shifts nothing. An invalid number or id is a 400 that names it.

use domain::ai::Dialect;
use serde_json::{Value, json};

use super::request_summary::refused;
use crate::http::problem::Problem;

const PAGE_MAX: usize = 1_000;

/// The page that a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    limit: Option<usize>,
    after: Option<(&'static str, String)>,
    before: Option<(&'static str, String)>,
}

/// A page of a list, and whether there is more.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelPage {
    pub from: usize,
    pub to: usize,
    /// Whether there is more in the requested direction.
    pub has_more: bool,
    /// Whether a page was asked for at all.
    pub is_asked: bool,
}

impl PageRequest {
    pub fn read(dialect: Dialect, query: &str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let id = || value.clone().into_owned();
            match (dialect, name.as_ref()) {
                (Dialect::OpenAiChat | Dialect::Anthropic, "limit") => {
                    asked.limit = Some(number("limit", &value, false)?);
                }
                (Dialect::Gemini, "pageSize" | "page_size") => {
                    // Google caps a larger number at the maximum.
                    asked.limit = Some(number("pageSize", &value, true)?).filter(|size| *size > 0);
                }
                (Dialect::OpenAiChat | Dialect::Anthropic, "after_id") => asked.after = Some(("after_id", id())),
                (Dialect::OpenAiChat, "after") => asked.after = Some(("after", id())),
                (Dialect::OpenAiChat | Dialect::Anthropic, "before_id") => asked.before = Some(("before_id", id())),
                (Dialect::OpenAiChat, "before") => asked.before = Some(("before", id())),
                (Dialect::Gemini, "pageToken" | "page_token") if !value.is_empty() => {
                    asked.after = Some(("pageToken", id()));
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The page of this list.
    pub fn page(&self, ids: &[&str]) -> Result<ModelPage, Problem> {
        let place = |edge: &Option<(&'static str, String)>| match edge {
            None => Ok(None),
            Some((name, id)) => match ids.iter().position(|known| known == id) {
                Some(place) => Ok(Some(place)),
                None => Err(refused(*name, "is the id of no model of this list")),
            },
        };
        let (after, before) = (place(&self.after)?, place(&self.before)?);
        let (first, end) = (after.map_or(0, |after| after + 1), before.unwrap_or(ids.len()));
        let end = end.max(first);
        let limit = self.limit.unwrap_or(ids.len());
        let is_backwards = before.is_some() && after.is_none();
        let (from, to) = if is_backwards {
            (end.saturating_sub(limit).max(first), end)
        } else {
            (first, first.saturating_add(limit).min(end))
        };
        let has_more = if is_backwards { from > first } else { to < end };
        Ok(ModelPage { from, to, has_more, is_asked: *self != Self::default() })
    }
}

fn number(name: &'static str, text: &str, may_exceed: bool) -> Result<usize, Problem> {
    let least = usize::from(!may_exceed);
    let number: Option<usize> = text.parse().ok();
    match number {
        Some(number) if number >= least && (may_exceed || number <= PAGE_MAX) => Ok(number.min(PAGE_MAX)),
        _ => Err(refused(name, format!("is a whole number from 1 to {PAGE_MAX}"))),
    }
}

impl ModelPage {
    /// The list with the paging fields of the dialect.
    pub fn listed(&self, dialect: Dialect, items: &[Value], ids: &[&str]) -> Value {
        let shown = ids.get(self.from..self.to).unwrap_or_default();
        let (first, last) = (shown.first(), shown.last());
        match dialect {
            Dialect::OpenAiChat if !self.is_asked => json!({ "object": "list", "data": items }),
            Dialect::OpenAiChat => {
                json!({ "object": "list", "data": items, "has_more": self.has_more, "first_id": first, "last_id": last })
            }
            Dialect::Anthropic => {
                json!({ "data": items, "has_more": self.has_more, "first_id": first, "last_id": last })
            }
            Dialect::Gemini => match last.filter(|_| self.has_more) {
                Some(last) => json!({ "models": items, "nextPageToken": last }),
                None => json!({ "models": items }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn shown(dialect: Dialect, query: &str) -> Result<(String, bool), String> {
        let told = |problem: Problem| problem.fields["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
        let page = PageRequest::read(dialect, query).map_err(told)?.page(&IDS).map_err(told)?;
        Ok((IDS[page.from..page.to].concat(), page.has_more))
    }

    #[test]
    fn a_page_is_told_by_its_edges() {
        for (query, ids, has_more) in [
            ("", "abcde", false),
            ("limit=2", "ab", true),
            ("limit=5", "abcde", false),
            ("limit=1000", "abcde", false),
            ("limit=2&after_id=b", "cd", true),
            ("limit=2&after_id=c", "de", false),
            ("after_id=e", "", false),
            ("limit=2&before_id=d", "bc", true),
            ("limit=9&before_id=c", "ab", false),
            ("before_id=a", "", false),
            ("after_id=a&before_id=d&limit=1", "b", true),
            ("after_id=d&before_id=b", "", false),
            ("unheard_of=1&beta=true", "abcde", false),
        ] {
            for dialect in [Dialect::OpenAiChat, Dialect::Anthropic] {
                assert_eq!(shown(dialect, query), Ok((ids.to_owned(), has_more)), "{query}");
            }
        }
        for (query, ids, has_more) in [
            ("pageSize=2", "ab", true),
            ("pageSize=0", "abcde", false),
            ("pageSize=5000", "abcde", false),
            ("pageSize=2&pageToken=b", "cd", true),
            ("pageToken=", "abcde", false),
            ("limit=2", "abcde", false),
        ] {
            assert_eq!(shown(Dialect::Gemini, query), Ok((ids.to_owned(), has_more)), "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (dialect, query, field) in [
            (Dialect::Anthropic, "limit=0", "limit"),
            (Dialect::Anthropic, "limit=1001", "limit"),
            (Dialect::OpenAiChat, "limit=many", "limit"),
            (Dialect::Anthropic, "limit=-1", "limit"),
            (Dialect::Anthropic, "after_id=z", "after_id"),
            (Dialect::OpenAiChat, "before=z", "before"),
            (Dialect::Gemini, "pageSize=-1", "pageSize"),
            (Dialect::Gemini, "pageToken=z", "pageToken"),
        ] {
            assert_eq!(shown(dialect, query), Err(field.to_owned()), "{query}");
        }
    }

    #[test]
    fn every_walk_through_the_pages_sees_every_model_once() {
        for size in 1..=6 {
            let (mut seen, mut after) = (String::new(), String::new());
            loop {
                let (ids, has_more) = shown(Dialect::Anthropic, &format!("limit={size}{after}")).unwrap();
                seen += &ids;
                if !has_more {
                    break;
                }
                after = format!("&after_id={}", &ids[ids.len() - 1..]);
            }
            assert_eq!(seen, "abcde", "in pages of {size}");
        }
    }
}
