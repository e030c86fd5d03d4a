//! Statements with named parameters. They are turned into statements with the parameters that the database knows, whose
//! values are sent apart from the text. No value ever becomes part of a statement's text.

use std::fmt;

/// How a database writes parameters, quotes and comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    Mysql,
}

/// A named parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// The whole name.
    User,
    /// The name before its last `@`.
    Name,
    /// The name after its last `@`; empty without one.
    Domain,
    /// The client's IP address; NULL when no client asks.
    Address,
    /// The password field of a new account.
    Password,
}

impl Parameter {
    /// The parameters of most statements.
    pub(super) const OF_LOGIN: &'static [Self] = &[Self::User, Self::Name, Self::Domain, Self::Address];
    /// Those of statements that change accounts, which no client asks for.
    pub(super) const OF_ACCOUNT: &'static [Self] = &[Self::User, Self::Name, Self::Domain];
    /// Those of the statement that adds an account.
    pub(super) const OF_NEW_ACCOUNT: &'static [Self] = &[Self::User, Self::Name, Self::Domain, Self::Password];

    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Name => "name",
            Self::Domain => "domain",
            Self::Address => "address",
            Self::Password => "password",
        }
    }
}

/// A single statement in the form of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    /// The parameter of each placeholder, in the order of the text.
    pub(super) parameters: Vec<Parameter>,
}

/// Why a text is no statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    Nul,
    /// A quote or comment has no end.
    Open(&'static str),
    /// There is more than one statement.
    Several,
    /// No parameter here has this name.
    Unknown(String, &'static [Parameter]),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the statement is empty"),
            Self::Nul => f.write_str("the statement has a NUL in it"),
            Self::Open(what) => write!(f, "a {what} has no end"),
            Self::Several => f.write_str("there has to be a single statement, but one follows the semicolon"),
            Self::Unknown(name, known) => {
                write!(f, "there is no parameter :{name}; there is")?;
                known.iter().try_for_each(|parameter| write!(f, " :{}", parameter.name()))
            }
        }
    }
}

impl Statement {
    /// Reads a statement that may have these parameters.
    pub(super) fn parse(text: &str, dialect: Dialect, known: &'static [Parameter]) -> Result<Self, Fault> {
        if text.contains('\0') {
            return Err(Fault::Nul);
        }
        let mut statement = Self { text: String::with_capacity(text.len()), parameters: Vec::new() };
        let (mut rest, mut is_ended, mut is_empty) = (text, false, true);
        while !rest.is_empty() {
            let (token, length) = token(rest, statement.text.chars().next_back(), dialect)?;
            let (now, next) = rest.split_at(length);
            rest = next;
            match token {
                Token::Semicolon => {
                    is_ended = true;
                    continue;
                }
                Token::Space => {}
                _ if is_ended => return Err(Fault::Several),
                _ => is_empty = false,
            }
            match token {
                Token::Parameter => {
                    let parameter = known.iter().find(|parameter| parameter.name() == &now[1..]);
                    statement.parameters.push(*parameter.ok_or_else(|| Fault::Unknown(now[1..].to_owned(), known))?);
                    match dialect {
                        Dialect::Postgres => statement.text += &format!("${}", statement.parameters.len()),
                        Dialect::Sqlite | Dialect::Mysql => statement.text.push('?'),
                    }
                }
                _ => statement.text += now,
            }
        }
        if is_empty { Err(Fault::Empty) } else { Ok(statement) }
    }
}

/// What a piece of a statement is.
enum Token {
    /// White space or a comment.
    Space,
    Semicolon,
    Parameter,
    /// A quoted text or name, or any other piece.
    Other,
}

/// Returns what the text, which is not empty, begins with, and its length. `before` is the character in front of it.
fn token(text: &str, before: Option<char>, dialect: Dialect) -> Result<(Token, usize), Fault> {
    use Dialect::{Mysql, Postgres, Sqlite};
    let octets = text.as_bytes();
    let in_word = before.is_some_and(is_of_word);
    let other = |length: Option<usize>, what| length.map(|length| (Token::Other, length)).ok_or(Fault::Open(what));
    let space = |length| Ok((Token::Space, length));
    match (octets[0], octets.get(1)) {
        (b'\'', _) => other(quoted(octets, dialect == Mysql), "text in quotes"),
        (b'"', _) => other(quoted(octets, dialect == Mysql), "text in double quotes"),
        (b'E' | b'e', Some(b'\'')) if dialect == Postgres && !in_word => {
            other(quoted(&octets[1..], true).map(|length| length + 1), "text in quotes")
        }
        (b'`', _) if dialect != Postgres => other(quoted(octets, false), "name in back quotes"),
        (b'[', _) if dialect == Sqlite => other(text.find(']').map(|at| at + 1), "name in brackets"),
        (b'$', _) if dialect == Postgres && !in_word => match dollar_tag(text) {
            Some(tag) => other(text[tag.len()..].find(tag).map(|at| at + 2 * tag.len()), "text in dollar quotes"),
            None => Ok((Token::Other, 1)),
        },
        (b'-', Some(b'-')) if dialect != Mysql || octets.get(2).is_none_or(|&next| next <= b' ') => space(line(text)),
        (b'#', _) if dialect == Mysql => space(line(text)),
        // MySQL runs what is in such a comment.
        (b'/', Some(b'*')) if dialect == Mysql && (text[2..].starts_with('!') || text[2..].starts_with("M!")) => {
            Ok((Token::Other, 3))
        }
        (b'/', Some(b'*')) => {
            comment(octets, dialect == Postgres).map(|length| (Token::Space, length)).ok_or(Fault::Open("comment"))
        }
        (b':', Some(b':')) => Ok((Token::Other, 2)),
        (b':', Some(&next)) if next == b'_' || next.is_ascii_alphabetic() => {
            let is_of_name = |octet: &&u8| octet.is_ascii_alphanumeric() || **octet == b'_';
            Ok((Token::Parameter, 1 + octets[1..].iter().take_while(is_of_name).count()))
        }
        (b';', _) => Ok((Token::Semicolon, 1)),
        _ => {
            let first = text.chars().next().unwrap_or_default();
            Ok((if first.is_whitespace() { Token::Space } else { Token::Other }, first.len_utf8()))
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of a text that begins with a quote, up to the same quote. A doubled quote is as two texts in a row.
fn quoted(octets: &[u8], has_escapes: bool) -> Option<usize> {
    let mut at = 1;
    while at < octets.len() {
        match octets[at] {
            b'\\' if has_escapes => at += 2,
            octet if octet == octets[0] => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The beginning of PostgreSQL's text in dollar quotes, such as `$$` or `$tag$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let length = text[1..].find('$')? + 2;
    let tag = &text[1..length - 1];
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_') && !tag.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| &text[..length])
}

/// The length of a comment up to the end of the line.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

fn comment(octets: &[u8], can_nest: bool) -> Option<usize> {
    let (mut at, mut depth) = (2, 1);
    while at + 1 < octets.len() {
        match &octets[at..at + 2] {
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            b"/*" if can_nest => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Dialect::{Mysql, Postgres, Sqlite};
    use super::*;

    fn parse(text: &str, dialect: Dialect) -> Result<(String, Vec<Parameter>), Fault> {
        let statement = Statement::parse(text, dialect, Parameter::OF_LOGIN)?;
        Ok((statement.text, statement.parameters))
    }

    #[test]
    fn parameters_become_those_of_the_database() {
        let text = "SELECT p FROM u WHERE a = :user AND b=:name AND (c=:domain OR d=:user)";
        let parameters = vec![Parameter::User, Parameter::Name, Parameter::Domain, Parameter::User];
        let marks = "SELECT p FROM u WHERE a = ? AND b=? AND (c=? OR d=?)";
        assert_eq!(parse(text, Sqlite), Ok((marks.to_owned(), parameters.clone())));
        assert_eq!(parse(text, Mysql), Ok((marks.to_owned(), parameters.clone())));
        let numbers = "SELECT p FROM u WHERE a = $1 AND b=$2 AND (c=$3 OR d=$4)";
        assert_eq!(parse(text, Postgres), Ok((numbers.to_owned(), parameters)));
    }

    #[test]
    fn quotes_comments_and_casts_have_no_parameters() {
        for (dialect, text) in [
            (Sqlite, "SELECT ':user', \":user\", `:user`, [:user] -- :user; '\n /* :user ; ' */"),
            (Sqlite, "SELECT 'it''s :user', '\\'"),
            (
                Postgres,
                "SELECT a::text, ':user''', E'\\':user', $$ :user ' ; $$, $x$ $$:user $x$, a$1 /* /* ; */ :user */",
            ),
            (Postgres, "SELECT '\\', \":user\" --:user"),
            (Mysql, "SELECT '\\':user', \"\\\":user\", `:user`, @a := 1 # :user ; '\n"),
            (Mysql, "SELECT 1 -- :user"),
            (Mysql, "SELECT 5--1"),
        ] {
            assert_eq!(parse(text, dialect), Ok((text.to_owned(), vec![])), "{text}");
        }
        assert_eq!(parse("SELECT 5--:user", Mysql), Ok(("SELECT 5--?".to_owned(), vec![Parameter::User])));
        assert_eq!(parse("SELECT /*! :user */", Mysql), Ok(("SELECT /*! ? */".to_owned(), vec![Parameter::User])));
        assert_eq!(parse("SELECT :user::text", Postgres), Ok(("SELECT $1::text".to_owned(), vec![Parameter::User])));
    }

    #[test]
    fn a_statement_stands_alone() {
        assert_eq!(parse("SELECT 1 ; -- one\n /* only */ ;", Sqlite).unwrap().0, "SELECT 1  -- one\n /* only */ ");
        assert_eq!(parse("SELECT 1; DROP TABLE u", Sqlite), Err(Fault::Several));
        assert_eq!(parse("SELECT 1; :user", Postgres), Err(Fault::Several));
        assert_eq!(parse(" -- nothing\n;", Sqlite), Err(Fault::Empty));
        assert_eq!(parse("SELECT '", Sqlite), Err(Fault::Open("text in quotes")));
        assert_eq!(parse("SELECT 1 /* /* */", Postgres), Err(Fault::Open("comment")));
        assert_eq!(parse("SELECT $a$ $b$", Postgres), Err(Fault::Open("text in dollar quotes")));
        assert_eq!(parse("SELECT \0", Sqlite), Err(Fault::Nul));
    }

    #[test]
    fn an_unknown_parameter_is_named_with_the_known_ones() {
        for text in ["SELECT :usr", "SELECT :user1", "SELECT :password", "SELECT :User"] {
            let fault = parse(text, Sqlite).unwrap_err().to_string();
            let name = text.trim_start_matches("SELECT :");
            assert_eq!(fault, format!("there is no parameter :{name}; there is :user :name :domain :address"));
        }
    }

    proptest! {
        /// No text makes the parser fail, and every placeholder has a parameter.
        #[test]
        fn any_text_is_a_statement_or_a_fault(text in "[a-z:$'\"`/*#; \\[\\]\\\\\n-]{0,40}|\\PC{0,20}") {
            for dialect in [Sqlite, Postgres, Mysql] {
                if let Ok((made, parameters)) = parse(&text, dialect) {
                    prop_assert!(dialect == Postgres || made.matches('?').count() >= parameters.len());
                }
            }
        }
    }
}
