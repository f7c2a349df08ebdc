// SPDX-License-Identifier: Apache-2.0

use half::{bf16, f16};

use crate::v1::{DataType, Tensor};
use crate::{Error, Result};

mod sealed {
    pub trait Sealed {}
}

/// What a tensor is made of: `bool`, integers, `f32`, `f64`, `half::f16`, `half::bf16`, `String`, `Vec<u8>`.
pub trait Element: Clone + sealed::Sealed {
    /// The type that a tensor of such elements has.
    const DATA_TYPE: DataType;
    #[doc(hidden)]
    fn write(elements: &[Self], tensor: &mut Tensor);
    /// The elements, as many as there are; nothing when the bytes are not whole elements.
    #[doc(hidden)]
    fn read(tensor: &Tensor) -> Option<Vec<Self>>;
}

macro_rules! numbers {
    ($($number:ty => $data_type:ident),* $(,)?) => { $(
        impl sealed::Sealed for $number {}
        impl Element for $number {
            const DATA_TYPE: DataType = DataType::$data_type;
            fn write(elements: &[Self], tensor: &mut Tensor) {
                tensor.data = elements.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into();
            }
            fn read(tensor: &Tensor) -> Option<Vec<Self>> {
                let chunks = tensor.data.chunks_exact(size_of::<$number>());
                let whole = chunks.remainder().is_empty();
                let values = chunks.map(|c| <$number>::from_le_bytes(c.try_into().expect("chunks are of this size")));
                whole.then(|| values.collect())
            }
        }
    )* };
}

numbers! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Float16, bf16 => Bfloat16, f32 => Float32, f64 => Float64,
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DATA_TYPE: DataType = DataType::Bool;
    fn write(elements: &[Self], tensor: &mut Tensor) {
        tensor.data = elements.iter().map(|&x| u8::from(x)).collect::<Vec<u8>>().into();
    }
    fn read(tensor: &Tensor) -> Option<Vec<Self>> {
        Some(tensor.data.iter().map(|&x| x != 0).collect())
    }
}

impl sealed::Sealed for String {}
impl Element for String {
    const DATA_TYPE: DataType = DataType::String;
    fn write(elements: &[Self], tensor: &mut Tensor) {
        tensor.strings = elements.to_vec();
    }
    fn read(tensor: &Tensor) -> Option<Vec<Self>> {
        Some(tensor.strings.clone())
    }
}

impl sealed::Sealed for Vec<u8> {}
impl Element for Vec<u8> {
    const DATA_TYPE: DataType = DataType::Bytes;
    fn write(elements: &[Self], tensor: &mut Tensor) {
        tensor.byte_strings = elements.to_vec();
    }
    fn read(tensor: &Tensor) -> Option<Vec<Self>> {
        Some(tensor.byte_strings.clone())
    }
}

impl Tensor {
    /// A tensor of the elements, row-major. The product of the shape must be the number of elements, which the
    /// server checks.
    pub fn new<T: Element>(elements: &[T], shape: &[i64]) -> Self {
        let mut tensor = Tensor { data_type: T::DATA_TYPE.into(), shape: shape.to_vec(), ..Default::default() };
        T::write(elements, &mut tensor);
        tensor
    }

    /// A tensor of one dimension.
    pub fn list<T: Element>(elements: &[T]) -> Self {
        Tensor::new(elements, &[elements.len() as i64])
    }

    /// A tensor of one element and no dimension.
    pub fn scalar<T: Element>(element: T) -> Self {
        Tensor::new(&[element], &[])
    }

    /// A tensor of two dimensions. Rows must not be empty and have the same length.
    pub fn matrix<T: Element, R: AsRef<[T]>>(rows: &[R]) -> Result<Self> {
        let width = rows.first().map_or(0, |row| row.as_ref().len());
        if width == 0 {
            return Err(Error::invalid("the matrix has no elements"));
        }
        let mut elements = Vec::with_capacity(rows.len() * width);
        for (i, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            if row.len() != width {
                return Err(Error::invalid(format!("row {i} has {} elements, the first has {width}", row.len())));
            }
            elements.extend_from_slice(row);
        }
        Ok(Tensor::new(&elements, &[rows.len() as i64, width as i64]))
    }

    /// The same tensor with a name, for applications with several inputs.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The elements, row-major. `T` must be the tensor's type.
    pub fn values<T: Element>(&self) -> Result<Vec<T>> {
        if self.data_type() != T::DATA_TYPE {
            return Err(Error::invalid(format!(
                "the tensor's elements are {}, not {}",
                self.data_type().as_str_name(),
                T::DATA_TYPE.as_str_name()
            )));
        }
        let count = self.shape.iter().try_fold(1, |n: usize, &d| n.checked_mul(usize::try_from(d).ok()?));
        match T::read(self) {
            Some(values) if count == Some(values.len()) => Ok(values),
            _ => {
                let shape = &self.shape;
                Err(Error::invalid(format!("the tensor does not have the elements that its shape {shape:?} says")))
            }
        }
    }

    /// The only element.
    pub fn value<T: Element>(&self) -> Result<T> {
        let mut values = self.values()?;
        match (values.pop(), values.len()) {
            (Some(value), 0) => Ok(value),
            (last, rest) => {
                Err(Error::invalid(format!("the tensor has {} elements, not one", rest + usize::from(last.is_some()))))
            }
        }
    }
}

impl<T: Element> From<&[T]> for Tensor {
    fn from(elements: &[T]) -> Self {
        Tensor::list(elements)
    }
}

impl<T: Element> From<Vec<T>> for Tensor {
    fn from(elements: Vec<T>) -> Self {
        Tensor::list(&elements)
    }
}

#[cfg(feature = "ndarray")]
impl<T: Element, D: ndarray::Dimension> From<&ndarray::Array<T, D>> for Tensor {
    fn from(array: &ndarray::Array<T, D>) -> Self {
        let shape: Vec<i64> = array.shape().iter().map(|&d| d as i64).collect();
        // The standard layout is row-major; any other is copied into it.
        Tensor::new(array.as_standard_layout().as_slice().expect("it is in the standard layout"), &shape)
    }
}

#[cfg(feature = "ndarray")]
impl Tensor {
    /// The elements as an array of the tensor's shape. `T` must be the tensor's type.
    pub fn to_array<T: Element>(&self) -> Result<ndarray::ArrayD<T>> {
        let values = self.values()?;
        let shape: Vec<usize> = self.shape.iter().map(|&d| d as usize).collect();
        ndarray::ArrayD::from_shape_vec(shape, values).map_err(|e| Error::invalid(e.to_string()))
    }
}
