//! The settings of all parts of the server, as PEEP's `s?` shows them.

use std::collections::BTreeSet;
use std::sync::Arc;

/// A setting with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the configuration file.
    pub key: String,
    /// Its value; `None` if it has none. Passwords are hidden.
    pub value: Option<String>,
    /// True if only the admin may see the value.
    pub is_private: bool,
    /// True if it has this value because the operator has given it.
    pub is_given: bool,
}

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce(Arc<[Setting]>);

impl FromIterator<Setting> for InForce {
    fn from_iter<I: IntoIterator<Item = Setting>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

impl InForce {
    /// These settings, but those with the `names` as they were in `before`.
    #[must_use]
    pub fn keeping(&self, names: &BTreeSet<&str>, before: &Self) -> Self {
        let kept = |setting: &Setting| {
            let old = before.0.iter().find(|old| old.key == setting.key && names.contains(&*old.key));
            old.unwrap_or(setting).clone()
        };
        self.0.iter().map(kept).collect()
    }

    /// Returns true if the operator has given the setting `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|setting| setting.key == key && setting.is_given)
    }

    /// The settings in the order of the manual.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }
}
