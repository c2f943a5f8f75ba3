//! Who a container's program runs as: names are the image's own, read from its `/etc/passwd` and `/etc/group`.
//!
//! The files are texts that anyone may have written: a line that is not as passwd(5) and group(5) have it is passed
//! over, and no name service is ever asked.

use super::layers::{self, LayersError};
use super::spec::User;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;

/// The highest id that docker gives.
const LARGEST_ID: u32 = i32::MAX as u32;

/// The most groups that the kernel gives a process.
const MOST_GROUPS: usize = 65_536;

/// Why no one can be found to run a container's program as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The user is in no file.
    #[error("the image has no user `{0}` in its /etc/passwd; name one that it has, or give a number")]
    NoUser(String),
    /// The group is in no file.
    #[error("the image has no group `{0}` in its /etc/group; name one that it has, or give a number")]
    NoGroup(String),
    /// A number is too high.
    #[error("the id `{0}` is out of range; ids go from 0 to 2147483647")]
    Range(String),
    /// More groups than the kernel takes.
    #[error("the user `{0}` is in more groups than the {MOST_GROUPS} that a process can have")]
    TooManyGroups(String),
}

/// The user databases of an image; empty where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Etc {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups, the group itself first; each once.
    pub groups: Vec<u32>,
    /// The home directory; `/` for a user that is in no file.
    pub home: String,
}

impl From<Identity> for User {
    fn from(identity: Identity) -> Self {
        Self { uid: identity.uid, gid: identity.gid, groups: identity.groups }
    }
}

impl Etc {
    /// Reads both files of a container's root as overlayfs would show them: the writable layer's directory first, then
    /// those of the image's layers from the topmost one down. A file that is missing is empty; bytes that are no
    /// UTF-8 spoil their line only.
    ///
    /// # Errors
    /// When a directory or file cannot be read, is no regular file, or is larger than [`LARGEST_FILE`].
    pub fn read<P: AsRef<std::path::Path>>(directories: &[P]) -> Result<Self, LayersError> {
        let text = |path| -> Result<String, LayersError> {
            let bytes = layers::read(directories, path, LARGEST_FILE)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self { passwd: text("/etc/passwd")?, group: text("/etc/group")? })
    }
}

/// A line of `/etc/passwd`.
struct UserLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// An id as the files have it: digits only.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().filter(|id| *id <= LARGEST_ID)).flatten()
}

fn users(passwd: &str) -> impl Iterator<Item = UserLine<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        (!name.is_empty()).then_some(UserLine { name, uid: id(uid)?, gid: id(gid)?, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = GroupLine<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
        let members = fields.next().unwrap_or_default();
        (!name.is_empty()).then_some(GroupLine { name, gid: id(gid)?, members })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.contains('\0'))
}

/// A text that a user or group is asked for by: a name, or a number where all of it is digits.
fn asked_id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    id(text).map(Some).ok_or_else(|| UserError::Range(text.to_owned()))
}

/// Finds who `user`, `uid`, `user:group` or `uid:gid` is (empty: root), with further `groups` by name or number.
///
/// As docker has it: a name comes before a number only by where it stands in the file; a user that the file has is also
/// in all groups that list it, unless a group was asked for; a number that no file has is taken as it is.
///
/// # Errors
/// When a name is in no file or a number is too high.
pub fn resolve(etc: &Etc, user: &str, further: &[String]) -> Result<Identity, UserError> {
    let (asked_user, asked_group) = user.split_once(':').unwrap_or((user, ""));
    let asked_user = if asked_user.is_empty() { "0" } else { asked_user };
    let number = asked_id(asked_user)?;
    let found = users(&etc.passwd).find(|line| line.name == asked_user || Some(line.uid) == number);
    let (uid, default_gid, home) = match (&found, number) {
        (Some(line), _) => (line.uid, line.gid, line.home),
        (None, Some(number)) => (number, 0, ""),
        (None, None) => return Err(UserError::NoUser(asked_user.to_owned())),
    };
    let gid = if asked_group.is_empty() { default_gid } else { group(etc, asked_group)? };
    let mut ids = vec![gid];
    if let Some(line) = found.filter(|_| asked_group.is_empty()) {
        let lists = |group: &GroupLine<'_>| group.members.split(',').any(|member| member.trim() == line.name);
        ids.extend(groups(&etc.group).filter(lists).map(|group| group.gid));
    }
    for name in further {
        ids.push(group(etc, name)?);
    }
    let groups = each_once(ids);
    if groups.len() > MOST_GROUPS {
        return Err(UserError::TooManyGroups(asked_user.to_owned()));
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// The id of a group by name or number.
fn group(etc: &Etc, asked: &str) -> Result<u32, UserError> {
    let number = asked_id(asked)?;
    let found = groups(&etc.group).find(|line| line.name == asked || Some(line.gid) == number);
    found.map(|line| line.gid).or(number).ok_or_else(|| UserError::NoGroup(asked.to_owned()))
}

fn each_once(ids: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn etc() -> Etc {
        Etc {
            passwd: "root:x:0:0:root:/root:/bin/sh\n\
                     # a note:x:5:5::/:\n\
                     broken:x:one:1::/:\n\
                     short:x\n\
                     \n\
                     app:x:1000:1001:App:/home/app:/bin/sh\n\
                     bare:x:7:8\n\
                     33:x:2000:2000::/named:\n\
                     www:x:33:33::/var/www:/sbin/nologin\n"
                .to_owned(),
            group: "root:x:0:\nwheel:x:10:root,app\nvideo:x:44:app, other\nbad:x:-1:app\nlone:x:55\n".to_owned(),
        }
    }

    fn who(user: &str, groups: &[&str]) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        resolve(&etc(), user, &groups).map(|who| (who.uid, who.gid, who.groups, who.home))
    }

    #[test]
    fn users_by_name_and_number() {
        let ok = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
        assert_eq!(who("", &[]), ok(0, 0, &[0, 10], "/root"));
        assert_eq!(who("app", &[]), ok(1000, 1001, &[1001, 10, 44], "/home/app"));
        assert_eq!(who("1000", &[]), ok(1000, 1001, &[1001, 10, 44], "/home/app"));
        assert_eq!(who("app:video", &[]), ok(1000, 44, &[44], "/home/app"));
        assert_eq!(who("app:5000", &["lone", "44", "44", "6000"]), ok(1000, 5000, &[5000, 55, 44, 6000], "/home/app"));
        assert_eq!(who(":video", &[]), ok(0, 44, &[44], "/root"));
        assert_eq!(who("bare", &[]), ok(7, 8, &[8], "/"));
        // A number that no line has.
        assert_eq!(who("4321", &[]), ok(4321, 0, &[0], "/"));
        assert_eq!(who("4321:8765", &[]), ok(4321, 8765, &[8765], "/"));
        // A name of digits that stands before the number.
        assert_eq!(who("33", &[]), ok(2000, 2000, &[2000], "/named"));
    }

    #[test]
    fn who_is_not_there() {
        assert_eq!(who("nobody", &[]), Err(UserError::NoUser("nobody".to_owned())));
        assert_eq!(who("broken", &[]), Err(UserError::NoUser("broken".to_owned())));
        assert_eq!(who("app:none", &[]), Err(UserError::NoGroup("none".to_owned())));
        assert_eq!(who("app", &["none"]), Err(UserError::NoGroup("none".to_owned())));
        assert_eq!(who("2147483648", &[]), Err(UserError::Range("2147483648".to_owned())));
        assert_eq!(who("0:99999999999", &[]), Err(UserError::Range("99999999999".to_owned())));
        assert_eq!(who("-1", &[]), Err(UserError::NoUser("-1".to_owned())));
    }

    #[test]
    fn an_image_without_the_files_has_root_and_numbers() {
        let none = Etc::default();
        assert_eq!(resolve(&none, "", &[]).unwrap().home, "/");
        assert_eq!(resolve(&none, "5:6", &[]).unwrap().gid, 6);
        assert!(resolve(&none, "root", &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read(passwd in "[a-c0-9:,\\n\\PC]{0,200}", group in "[a-c0-9:,\\n\\PC]{0,200}", user in "\\PC{0,12}") {
            let etc = Etc { passwd, group };
            if let Ok(found) = resolve(&etc, &user, &[]) {
                prop_assert!(found.uid <= LARGEST_ID && found.gid <= LARGEST_ID);
                prop_assert_eq!(found.groups.first(), Some(&found.gid));
            }
        }

        #[test]
        fn a_user_that_stands_in_the_file_is_found(name in "[a-z][a-z0-9]{0,8}", uid in 0u32..=LARGEST_ID, gid in 0u32..=LARGEST_ID) {
            let etc = Etc { passwd: format!("junk\n{name}:x:{uid}:{gid}::/h:/s"), group: String::new() };
            let found = resolve(&etc, &name, &[]).unwrap();
            prop_assert_eq!((found.uid, found.gid, found.home.as_str()), (uid, gid, "/h"));
        }
    }
}
