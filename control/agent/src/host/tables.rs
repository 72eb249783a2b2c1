//! Skep's nft tables: loaded, compared with what the kernel has, and loaded again where somebody else
//! changed them.

use super::netns::Netns;
use super::{RulesError, nft, quota, rules::Rules, sources};
use std::collections::BTreeMap;
use std::io;

/// Family and name of each, in the order they are loaded.
const NAMES: [&str; 3] = [Rules::NAME, sources::NAME, quota::NAME];

/// A table as it should be.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its declaration.
    pub(super) text: String,
}

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<&'static str, Loaded>);

#[derive(Debug)]
struct Loaded {
    text: String,
    /// What the kernel's own words for it were.
    listing: Option<String>,
}

impl Tables {
    /// Nothing was loaded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces those that should say something else than they do, each in one transaction.
    pub(super) async fn load(&mut self, netns: &Netns, wanted: Vec<Table>) -> Result<(), RulesError> {
        for Table { name, text } in wanted {
            if self.0.get(name).is_some_and(|loaded| loaded.text == text) {
                continue;
            }
            nft::load(netns, replace(name, &text)).await?;
            let listing = list(netns, name).await.map_err(RulesError::Run)?;
            self.0.insert(name, Loaded { text, listing });
        }
        Ok(())
    }

    /// Forgets, and returns, those that are no longer in the kernel as they were loaded.
    pub(super) async fn forget_changed(&mut self, netns: &Netns) -> io::Result<Vec<&'static str>> {
        let mut changed = Vec::new();
        for (name, loaded) in &self.0 {
            if list(netns, name).await? != loaded.listing {
                changed.push(*name);
            }
        }
        self.0.retain(|name, _| !changed.contains(name));
        Ok(changed)
    }

    pub(super) async fn remove(&mut self, netns: &Netns) -> Vec<String> {
        self.0.clear();
        let mut errors = Vec::new();
        for name in NAMES {
            if let Err(error) = nft::load(netns, removal(name)).await {
                errors.push(format!("cannot remove the nft table {name}: {error}"));
            }
        }
        errors
    }
}

/// Of a table that may or may not be there.
fn removal(name: &str) -> String {
    format!("table {name}\ndelete table {name}\n")
}

fn replace(name: &str, text: &str) -> String {
    removal(name) + text
}

/// Without the elements of the set that the kernel fills itself.
async fn list(netns: &Netns, name: &str) -> io::Result<Option<String>> {
    let terse = if name == quota::NAME { "--terse" } else { "--stateless" };
    nft::listing(netns, vec!["--stateless", terse, "list", "table"], name).await
}
