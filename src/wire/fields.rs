//! The fields of a request, as they came: a list.
//!
//! A request has a dozen fields, and most are looked at once or never, so a list that is searched from its beginning is cheaper
//! than a table that hashes every name, and a third of its size for as long as the call lives. It never changes their order.
//!
//! Owns the difference between what the client has said and what we say of it: both may have the same name.

use http::header::{ORIGIN, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Which library a page calls with; a browser does not let it set `user-agent`.
pub const X_USER_AGENT: HeaderName = HeaderName::from_static("x-user-agent");

/// The fields that say who asks: what a record tells of a head, and so what is kept of one that is otherwise let go.
pub static WHO_ASKS: [HeaderName; 3] = [ORIGIN, USER_AGENT, X_USER_AGENT];

/// A name and a value.
pub type Field = (HeaderName, HeaderValue);

/// Fields in the order in which they came; a name may come more than once. Behind them stand those that are our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    list: Vec<Field>,
    /// How many at the end of the list are our own.
    ours: usize,
}

impl Fields {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            list: Vec::new(),
            ours: 0,
        }
    }

    /// None yet, and room for so many.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            list: Vec::with_capacity(count),
            ours: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.list.iter().map(|(name, value)| (name, value))
    }

    /// What the client has said, and what we say.
    pub fn told_apart(&self) -> (&[Field], &[Field]) {
        self.list.split_at(self.list.len() - self.ours)
    }

    /// The values of that name.
    pub fn get_all(&self, name: impl PartialEq<HeaderName>) -> impl Iterator<Item = &HeaderValue> {
        let own = self.list.iter().filter(move |(own, _)| name == *own);
        own.map(|(_, value)| value)
    }

    /// The first value of that name.
    pub fn get(&self, name: impl PartialEq<HeaderName>) -> Option<&HeaderValue> {
        self.get_all(name).next()
    }

    /// Whether there is one of that name.
    pub fn contains(&self, name: impl PartialEq<HeaderName>) -> bool {
        self.get(name).is_some()
    }

    /// Adds one at the end of what the client has said.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.list.insert(self.list.len() - self.ours, (name, value));
    }

    /// Adds one of our own. It goes to the backend whatever its name is: what a client says under such a name stays behind,
    /// because anybody could say it.
    pub fn vouch(&mut self, name: HeaderName, value: HeaderValue) {
        self.list.push((name, value));
        self.ours += 1;
    }

    /// Takes away all of that name.
    pub fn remove(&mut self, name: impl PartialEq<HeaderName>) {
        self.retain(|own| name != *own);
    }

    /// Keeps those whose name is to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName) -> bool) {
        let mut theirs = self.list.len() - self.ours;
        let mut kept_of_ours = 0;
        self.list.retain(|(name, _)| {
            let kept = keep(name);
            match theirs.checked_sub(1) {
                Some(left) => theirs = left,
                None => kept_of_ours += usize::from(kept),
            }
            kept
        });
        self.ours = kept_of_ours;
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            // A name that is repeated comes once, with the first of its values.
            last = name.or(last);
            if let Some(name) = &last {
                fields.append(name.clone(), value);
            }
        }
        fields
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<T: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: T) -> Self {
        Self {
            list: fields.into_iter().collect(),
            ours: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, ORIGIN, VIA};

    use super::*;

    #[test]
    fn they_keep_their_order_and_every_value() {
        let named = |name: &HeaderName, value| (name.clone(), HeaderValue::from_static(value));
        let mut fields: Fields = [named(&VIA, "a"), named(&ACCEPT, "b"), named(&VIA, "c")]
            .into_iter()
            .collect();
        assert_eq!(fields.get(VIA).unwrap(), "a");
        assert_eq!(fields.get_all(VIA).collect::<Vec<_>>(), ["a", "c"]);
        assert!(!fields.contains(ORIGIN));

        fields.append(ORIGIN, HeaderValue::from_static("d"));
        fields.remove(VIA);
        let names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [ACCEPT, ORIGIN]);
        assert_eq!((fields.len(), fields.is_empty()), (2, false));
    }

    #[test]
    fn what_we_say_stands_behind_what_came_and_is_told_apart_from_it() {
        let value = HeaderValue::from_static;
        let mut fields = Fields::new();
        fields.append(VIA, value("theirs"));
        fields.vouch(VIA, value("ours"));
        fields.vouch(ORIGIN, value("ours"));
        fields.append(ACCEPT, value("theirs"));
        let names = |part: &[Field]| {
            let names = part.iter().map(|(name, value)| {
                let value = value.to_str().unwrap();
                format!("{name}: {value}")
            });
            names.collect::<Vec<_>>()
        };
        let (theirs, ours) = fields.told_apart();
        assert_eq!(names(theirs), ["via: theirs", "accept: theirs"]);
        assert_eq!(names(ours), ["via: ours", "origin: ours"]);
        fields.remove(VIA);
        let (theirs, ours) = fields.told_apart();
        assert_eq!(names(theirs), ["accept: theirs"]);
        assert_eq!(names(ours), ["origin: ours"]);
        fields.retain(|_| false);
        assert_eq!((fields.told_apart().1.len(), fields.len()), (0, 0));
        assert_eq!(fields, Fields::new());
    }

    #[test]
    fn a_map_gives_all_its_values() {
        let mut map = HeaderMap::new();
        map.append(VIA, HeaderValue::from_static("a"));
        map.append(ACCEPT, HeaderValue::from_static("b"));
        map.append(VIA, HeaderValue::from_static("c"));
        let fields = Fields::from(map);
        assert_eq!(fields.len(), 3);
        assert_eq!(fields.get_all(VIA).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(fields.get(ACCEPT).unwrap(), "b");
    }
}
