//! The parts of the requested values: elements, entries, fields, variants.

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::slots::{Kind, SlotId};
use super::tracer::{Chosen, Refused, Tracer, VariantBy};

/// One element or none.
pub(super) struct Seq<'t> {
    pub(super) tracer: Tracer<'t>,
    pub(super) part: Option<SlotId>,
}

impl<'de> de::SeqAccess<'de> for Seq<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(part) = self.part.take() else { return Ok(None) };
        self.tracer.offer(part, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.part.is_some()))
    }
}

/// One entry or none.
pub(super) struct Map<'t> {
    pub(super) tracer: Tracer<'t>,
    pub(super) key: Option<SlotId>,
    pub(super) value: SlotId,
}

impl<'de> de::MapAccess<'de> for Map<'_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(key) = self.key.take() else { return Ok(None) };
        self.tracer.give(key, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.give(self.value, |tracer| seed.deserialize(tracer))
    }

    /// Examines the value even if the key is refused, as most keys that must have a certain text form are.
    fn next_entry_seed<K: DeserializeSeed<'de>, V: DeserializeSeed<'de>>(
        &mut self,
        key_seed: K,
        value_seed: V,
    ) -> Result<Option<(K::Value, V::Value)>, Refused> {
        let Some(key) = self.key.take() else { return Ok(None) };
        let key = self.tracer.give(key, |tracer| key_seed.deserialize(tracer));
        let value = self.tracer.give(self.value, |tracer| value_seed.deserialize(tracer));
        Ok(Some((key?, value?)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.key.is_some()))
    }
}

/// All parts of a tuple, one after the other.
pub(super) struct Tuple<'t> {
    pub(super) tracer: Tracer<'t>,
    pub(super) next: usize,
    pub(super) len: usize,
}

impl<'de> de::SeqAccess<'de> for Tuple<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        let part = self.tracer.part(self.next)?;
        self.next += 1;
        self.tracer.give(part, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

/// The fields of a struct, by name.
pub(super) struct Struct<'t, 'a> {
    pub(super) tracer: Tracer<'t>,
    /// The fields still to be given, the next one last.
    pub(super) left: Vec<(&'static str, SlotId)>,
    pub(super) value: Option<SlotId>,
    /// The name that was given last, while its value has not been requested yet.
    pub(super) last: &'a mut Option<&'static str>,
}

impl<'de> de::MapAccess<'de> for Struct<'_, '_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some((name, slot)) = self.left.pop() else { return Ok(None) };
        self.value = Some(slot);
        *self.last = Some(name);
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        *self.last = None;
        let slot = self.value.take().ok_or(Refused::KNOWN)?;
        self.tracer.give(slot, |tracer| seed.deserialize(tracer))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// One variant of an enum.
pub(super) struct Enum<'t> {
    pub(super) tracer: Tracer<'t>,
}

impl<'de, 't> de::EnumAccess<'de> for Enum<'t> {
    type Error = Refused;
    type Variant = Payload<'t>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Payload<'t>), Refused> {
        let Chosen { by, slot } = self.tracer.variant()?;
        let chosen = match by {
            VariantBy::Name(name) => seed.deserialize(StrDeserializer::new(name))?,
            VariantBy::Number(number) => {
                let number: U32Deserializer<Refused> = number.into_deserializer();
                let given = seed.deserialize(number);
                self.tracer.note_number(given.is_ok());
                given.map_err(|_| Refused::KNOWN)?
            }
        };
        Ok((chosen, Payload { tracer: self.tracer, slot }))
    }
}

/// The content of a variant.
pub(super) struct Payload<'t> {
    pub(super) tracer: Tracer<'t>,
    slot: SlotId,
}

impl<'de> de::VariantAccess<'de> for Payload<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.tracer.offer(self.slot, |tracer| tracer.note(|kind| matches!(kind, Kind::Unit), || Ok(Kind::Unit)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.offer(self.slot, |tracer| {
            tracer.level::<T, _>(
                |kind| matches!(kind, Kind::Newtype(_)),
                || Ok(Kind::Newtype(tracer.trace.new_slot()?)),
                |tracer| tracer.give(tracer.one_part()?, |tracer| seed.deserialize(tracer)),
            )
        })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.tracer.offer(self.slot, |tracer| tracer.read_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.tracer.offer(self.slot, |tracer| tracer.read_struct(fields, visitor))
    }
}

/// An empty sequence or map.
pub(super) struct Nothing;

impl<'de> de::SeqAccess<'de> for Nothing {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, Refused> {
        Ok(None)
    }
}

impl<'de> de::MapAccess<'de> for Nothing {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, Refused> {
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<T::Value, Refused> {
        Err(Refused::KNOWN)
    }
}
