//! JSON objects of which no key may be there twice.
//!
//! JSON leaves open what a repeated key means, and readers take the last. Where each key is an
//! address in use, or a pool's part of a subnet, that would lose one in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// An object by its keys, each of which was there once.
pub(crate) struct Once<K, V>(pub(crate) BTreeMap<K, V>);

impl<'de, K, V> Deserialize<'de> for Once<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys<K, V>(PhantomData<(K, V)>);

        impl<'de, K, V> Visitor<'de> for Keys<K, V>
        where
            K: Deserialize<'de> + Ord + fmt::Display,
            V: Deserialize<'de>,
        {
            type Value = Once<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(key) = map.next_key::<K>()? {
                    if all.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("key '{key}' is there twice")));
                    }
                    all.insert(key, map.next_value()?);
                }
                Ok(Once(all))
            }
        }

        from.deserialize_map(Keys(PhantomData))
    }
}
