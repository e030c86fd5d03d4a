//! Opens the files that the flags name, at the start and for a reload.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::geteuid;

use super::accounts::{Account, AccountsArgs};
use super::args::seconds;
use super::{Args, Config, ConfigError, Maildrops, Ports};
use crate::auth::{AccountSource, NameRules, Users};
use crate::connections::MAX_CONNECTIONS;
use crate::maildrop::{Layouts, MailRoot, UniqueIdRules, UniqueIds};
use crate::net::Certificates;
use crate::settings::{Admin, Settings};
use crate::state::StateDir;
use crate::stats::StatsLog;
use crate::transform::Transform;

impl Args {
    /// Opens all files that the server needs.
    ///
    /// # Errors
    /// [`ConfigError`], if one is missing or invalid.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        let admin = Arc::new(self.open_admin()?);
        let transform = self.transform()?.map(Arc::new);
        let state = self.state.state.clone();
        let state = state.map(|path| StateDir::open(path.clone()).map_err(|error| ConfigError::State(path, error)));
        let state = state.transpose()?.map(Arc::new);
        let users = self.open_users(state.as_deref())?;
        self.accounts.warn();
        if self.peep_endpoint().is_none() && self.in_force.has("peep-port") {
            log::warn!("--peep-port is not used: beside --peep-socket PEEP has a port only if --peep-address is given");
        }
        let mail_root = Arc::new(self.open_mail_root(self.mailbox.clone())?);
        let certificates = self.tls.certificates(state.as_deref())?.map(Arc::new);
        Ok(Config {
            faults: self.faults.faults(&users),
            users,
            settings: self.settings(mail_root, admin, transform, certificates),
            max_connections: self.max_connections(),
            limits: self.limits.limits(),
            ports: self.ports(),
            state,
            stats_log: self.stats_log(),
            metrics: self.metrics,
        })
    }

    /// Makes the settings for sessions from these flags and the files that they name.
    pub(super) fn settings(
        &self,
        mail_root: Arc<MailRoot>,
        admin: Arc<Admin>,
        transform: Option<Arc<Transform>>,
        certificates: Option<Arc<Certificates>>,
    ) -> Settings {
        Settings {
            mail_root,
            admin,
            transform,
            certificates,
            owners: self.confinement.owners().map(Arc::new),
            busy: self.busy.rules(),
            timeout: seconds(self.timeout),
            min_rate: self.limits.min_rate(),
            peep_tls: self.tls.peep_tls,
            allow_cleartext: self.tls.allow_cleartext,
            proxies: self.proxies.networks(),
            proxy_tls: self.proxies.proxy_tls,
            in_force: self.in_force.clone(),
        }
    }

    pub(super) fn open_admin(&self) -> Result<Admin, ConfigError> {
        let admin = self.admin.read()?;
        self.check_admin(admin.is_default)?;
        // The default admin's password is public, and the admin of a server that runs as root could have any file of this
        // machine served as mail.
        let is_roots = admin.is_default && !self.confinement.becomes_user() && geteuid().is_root();
        Ok(Admin { credentials: admin.credentials, viewers: admin.viewers, is_default: admin.is_default, is_roots })
    }

    fn open_users(&self, state: Option<&StateDir>) -> Result<Users, ConfigError> {
        let mut users = Users::new(self.open_sources(&Users::default())?);
        if let Some(state) = state {
            users.keep_salts(state).map_err(|error| ConfigError::State(state.path().to_owned(), error))?;
        }
        users.set_name_rules(self.name_rules());
        for Account { name, password } in &self.users {
            users.add_own(name.clone(), password.0.as_bytes());
        }
        Ok(users)
    }

    /// Opens the sources of accounts. `running` has those that are in force.
    pub(super) fn open_sources(&self, running: &Users) -> Result<Vec<AccountSource>, ConfigError> {
        self.accounts.open(running, self.confinement.fence_of_accounts())
    }

    pub(super) fn name_rules(&self) -> NameRules {
        let AccountsArgs { lower_case_names, default_domain, .. } = &self.accounts;
        NameRules { lower_case: *lower_case_names, default_domain: default_domain.clone() }
    }

    /// Opens `path` as the mail directory.
    pub(super) fn open_mail_root(&self, path: PathBuf) -> Result<MailRoot, ConfigError> {
        self.open_mail_root_with(path, self.layouts())
    }

    fn open_mail_root_with(&self, path: PathBuf, layouts: Layouts) -> Result<MailRoot, ConfigError> {
        MailRoot::with_layouts(path.clone(), Arc::new(layouts)).map_err(|error| ConfigError::MailRoot(path, error))
    }

    fn layouts(&self) -> Layouts {
        self.layouts_with(self.unique_ids)
    }

    fn layouts_with(&self, source: UniqueIds) -> Layouts {
        let unique_ids = UniqueIdRules { source, dovecot_format: self.dovecot_uidl_format.clone() };
        let layouts = Layouts::new(self.layout).with_unique_ids(unique_ids).with_maildirs(self.maildirs.rules());
        let layouts = layouts.with_expiry(self.expiry.rules()).with_deletes(self.deletes.rule());
        layouts.with_notes_of_retrieved(self.state.state.is_some())
    }

    /// Opens what a task needs that only looks at maildrops. Nothing is written in the mail directory.
    ///
    /// # Errors
    /// [`ConfigError`], if the accounts or the mail directory cannot be used.
    pub fn look(&self) -> Result<Maildrops, ConfigError> {
        self.maildrops(self.layouts().read_only())
    }

    /// Opens the maildrops for importing unique-ids: those of both servers, unless the settings name one. Nothing is written
    /// unless `is_writing`.
    ///
    /// # Errors
    /// As of [`Args::look`].
    pub fn open_for_import(&self, is_writing: bool) -> Result<Maildrops, ConfigError> {
        let source = if self.unique_ids == UniqueIds::Name { UniqueIds::Auto } else { self.unique_ids };
        let layouts = self.layouts_with(source);
        self.maildrops(if is_writing { layouts } else { layouts.read_only() })
    }

    fn maildrops(&self, layouts: Layouts) -> Result<Maildrops, ConfigError> {
        let mail_root = self.open_mail_root_with(self.mailbox.clone(), layouts)?;
        Ok(Maildrops { accounts: self.open_users(None)?, mail_root, owners: self.confinement.owners() })
    }

    pub(super) fn max_connections(&self) -> usize {
        usize::try_from(self.max_connections).unwrap_or(MAX_CONNECTIONS)
    }

    pub(super) fn ports(&self) -> Ports {
        Ports {
            pop3: self.pop3_endpoint(),
            pop3s: self.pop3s_endpoint(),
            peep: self.peep_endpoint(),
            peep_socket: self.peep_socket.file(),
        }
    }

    pub(super) fn stats_log(&self) -> Option<StatsLog> {
        self.state.stats_log.clone().map(|log| StatsLog::new(log.path, log.interval))
    }
}
