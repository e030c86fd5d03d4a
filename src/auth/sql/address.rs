//! Where a database is, as its URL says.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;

use super::driver::Driver;
use super::mysql::{self, Mysql};
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use crate::auth::hidden::Hidden;
use crate::trust::Trust;

/// Settings of a connection besides the URL.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The password, which replaces one in the URL.
    pub(super) password: Option<Hidden<String>>,
    /// True for TLS; by default it is used to other machines.
    pub(super) tls: Option<bool>,
    /// The file with the authorities that are trusted instead of the system's.
    pub(super) ca: Option<PathBuf>,
    pub(super) connect: Duration,
    pub(super) limit: Duration,
}

/// Where a database is.
pub(super) enum Address {
    Sqlite(PathBuf),
    Postgres(Box<::postgres::Config>),
    Mysql(Box<::mysql::Opts>),
}

/// Parameters of URLs for which there are keys.
const TLS_PARAMETERS: [&str; 7] =
    ["sslmode", "sslnegotiation", "require_ssl", "verify_ca", "verify_identity", "built_in_roots", "root_cert_path"];

impl Address {
    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(parameter) = TLS_PARAMETERS.iter().find(|parameter| url.contains(&format!("{parameter}="))) {
            return Err(format!("url: write tls and tls-ca instead of {parameter}"));
        }
        match url.split_once(':') {
            Some(("sqlite", path)) => {
                // Some write sqlite:///path as in other URLs.
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.starts_with('/') {
                    Ok(Self::Sqlite(path.into()))
                } else {
                    Err("url: an SQLite file has to be sqlite:/PATH, with the whole path".to_owned())
                }
            }
            Some(("postgres" | "postgresql", _)) => {
                let config =
                    url.parse::<::postgres::Config>().map_err(|error| format!("url: {}", without_url(&error)))?;
                if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
                    return Err(
                        "url: there is no host: postgres://USER@HOST/DATABASE, or the directory of a socket as \
                                postgres://USER@%2Frun%2Fpostgresql/DATABASE"
                            .to_owned(),
                    );
                }
                Ok(Self::Postgres(Box::new(config)))
            }
            Some(("mysql" | "mariadb", rest)) => {
                let opts = ::mysql::Opts::from_url(&format!("mysql:{rest}"));
                opts.map(|opts| Self::Mysql(Box::new(opts))).map_err(|error| format!("url: {error}"))
            }
            _ => Err("url: it has to begin with sqlite:, postgres: or mysql:".to_owned()),
        }
    }

    /// Makes the driver of the database.
    pub(super) fn driver(self, terms: Terms) -> Result<Arc<dyn Driver>, String> {
        let uses_tls = terms.tls.unwrap_or_else(|| self.is_remote());
        if terms.ca.is_some() && !uses_tls {
            return Err("tls-ca: there is no TLS to this database without tls = true".to_owned());
        }
        let Terms { password, ca, connect, limit, .. } = terms;
        Ok(match self {
            Self::Sqlite(_) if uses_tls => return Err("tls: an SQLite file is not on a server".to_owned()),
            Self::Sqlite(_) if password.is_some() => {
                return Err("password-file: an SQLite file has no password".to_owned());
            }
            Self::Sqlite(path) => Arc::new(Sqlite { path, limit }),
            Self::Postgres(mut config) => {
                if let Some(password) = password {
                    config.password(&password.0);
                }
                let tls = uses_tls.then(|| Trust::of(ca).config(aws_lc_rs::default_provider()));
                Arc::new(Postgres::new(*config, tls.transpose()?, connect, limit))
            }
            Self::Mysql(opts) => {
                let tls = uses_tls.then_some(mysql::Tls { ca });
                Arc::new(Mysql::new(*opts, password.map(|password| password.0), tls, connect, limit))
            }
        })
    }

    /// The hosts that are connected to by TCP, and the ports.
    fn peers(&self) -> (Vec<String>, Vec<u16>) {
        match self {
            Self::Sqlite(_) => (vec![], vec![]),
            Self::Postgres(config) => match Postgres::hosts(config) {
                hosts if hosts.is_empty() => (hosts, vec![]),
                hosts => (hosts, Postgres::ports(config)),
            },
            Self::Mysql(opts) if opts.get_socket().is_some() => (vec![], vec![]),
            Self::Mysql(opts) => (vec![opts.get_ip_or_hostname().into_owned()], vec![opts.get_tcp_port()]),
        }
    }

    /// The TCP ports that the server has to be able to connect to.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.peers().1
    }

    /// True if the host has a name that has to be looked up.
    pub(super) fn has_name(&self) -> bool {
        self.peers().0.iter().any(|host| host.parse::<IpAddr>().is_err())
    }

    fn is_remote(&self) -> bool {
        let is_local = |host: &String| match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost",
        };
        !self.peers().0.iter().all(is_local)
    }

    /// What messages call the database: its URL without password.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(config) => {
                let place = self.peers().0.join(",");
                format!("postgres://{place}/{}", config.get_dbname().unwrap_or_default())
            }
            Self::Mysql(opts) => {
                let place = self.peers().0.join(",");
                format!("mysql://{place}/{}", opts.get_db_name().unwrap_or_default())
            }
        }
    }
}

/// The error of a URL, which shows no part of it.
fn without_url(error: &::postgres::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_reached_by_tls() {
        for (url, ports, is_remote, shown) in [
            ("sqlite:/var/lib/accounts.db", vec![], false, "sqlite:/var/lib/accounts.db"),
            ("postgres://pop3d:hunter2@localhost/mail", vec![5432], false, "postgres://localhost/mail"),
            ("postgres://pop3d@db.example.org:5433/mail", vec![5433], true, "postgres://db.example.org/mail"),
            ("postgres://pop3d@%2Frun%2Fpostgresql/mail", vec![], false, "postgres:///mail"),
            ("postgres://pop3d@[::1]/mail", vec![5432], false, "postgres://::1/mail"),
            ("mysql://pop3d:hunter2@127.0.0.1:3307/mail", vec![3307], false, "mysql://127.0.0.1/mail"),
            ("mariadb://pop3d@192.0.2.1/mail", vec![3306], true, "mysql://192.0.2.1/mail"),
            ("mysql://pop3d@localhost/mail?socket=%2Frun%2Fm.sock", vec![], false, "mysql:///mail"),
        ] {
            let address = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.ports(), address.is_remote()), (ports, is_remote), "{url}");
            assert_eq!(address.shown(), shown);
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for (url, why) in [
            ("oracle://hunter2@x", "it has to begin with"),
            ("sqlite:accounts.db", "whole path"),
            ("postgres:///mail", "there is no host"),
            ("postgres://u:hunter2@h/mail?port=x", "port"),
            ("postgres://u:hunter2@h/mail?sslmode=require", "write tls"),
            ("mysql://u:hunter2@h/mail?nonsense=1", "nonsense"),
            ("mysql://u:hunter2@h/mail?require_ssl=true", "write tls"),
        ] {
            let error = Address::parse(url).err().unwrap();
            assert!(error.contains(why) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
