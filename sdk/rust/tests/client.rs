// SPDX-License-Identifier: Apache-2.0
//! What the acceptance list does not see: tensors, settings, and a client that nobody answers.

use clipper::{
    blocking,
    half::{bf16, f16},
    reason, v1, Client, Code, Config,
};
use v1::Tensor;

#[test]
fn tensors_of_vectors() {
    let t: Tensor = vec![1f32, 2.0, 3.0].into();
    assert_eq!((t.data_type(), t.shape.as_slice()), (v1::DataType::Float32, [3].as_slice()));
    assert_eq!(t.values::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(Tensor::list(&[true, false]).values::<bool>().unwrap(), [true, false]);
    assert_eq!(Tensor::list(&[vec![0u8, 255], vec![]]).values::<Vec<u8>>().unwrap(), [vec![0, 255], vec![]]);
    assert_eq!(Tensor::scalar(f16::MAX).value::<f16>().unwrap(), f16::MAX);
    assert_eq!(Tensor::scalar(bf16::MIN).named("x").value::<bf16>().unwrap(), bf16::MIN);
    let t = Tensor::matrix(&[[1i32, 2], [3, 4], [5, 6]]).unwrap();
    assert_eq!((t.shape.as_slice(), t.values::<i32>().unwrap()), ([3, 2].as_slice(), vec![1, 2, 3, 4, 5, 6]));
}

#[test]
fn tensors_of_another_type_or_shape() {
    let t = |shape: &[i64]| Tensor::new(&[1f32, 2.0], shape);
    let cases: Vec<(clipper::Result<()>, &str)> = vec![
        (t(&[2]).values::<f64>().map(drop), "the tensor's elements are DATA_TYPE_FLOAT32, not DATA_TYPE_FLOAT64"),
        (t(&[2]).value::<f32>().map(drop), "the tensor has 2 elements, not one"),
        (t(&[3]).values::<f32>().map(drop), "the tensor does not have the elements that its shape [3] says"),
        (t(&[-2]).values::<f32>().map(drop), "the tensor does not have the elements that its shape [-2] says"),
        (
            t(&[i64::MAX, 8]).values::<f32>().map(drop),
            "the tensor does not have the elements that its shape [9223372036854775807, 8] says",
        ),
        (
            Tensor { data: vec![0; 9].into(), ..t(&[2]) }.values::<f32>().map(drop),
            "the tensor does not have the elements that its shape [2] says",
        ),
        (
            Tensor { data: vec![0; 3].into(), ..t(&[0]) }.values::<f32>().map(drop),
            "the tensor does not have the elements that its shape [0] says",
        ),
        (Tensor::matrix(&[vec![1u8, 2], vec![3]]).map(drop), "row 1 has 1 elements, the first has 2"),
        (Tensor::matrix::<u8, Vec<u8>>(&[]).map(drop), "the matrix has no elements"),
    ];
    for (result, message) in cases {
        assert_eq!(result.unwrap_err().message, message);
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn tensors_of_arrays() {
    let array = ndarray::array![[1i64, 2, 3], [4, 5, 6]];
    let tensor = Tensor::from(&array);
    assert_eq!(tensor.shape, [2, 3]);
    assert_eq!(tensor.to_array::<i64>().unwrap(), array.clone().into_dyn());
    // A view in another order is sent in its own.
    let turned = array.reversed_axes();
    assert_eq!(Tensor::from(&turned).values::<i64>().unwrap(), [1, 4, 2, 5, 3, 6]);
}

#[tokio::test]
async fn settings_that_cannot_be_used() {
    let key = |address: &str| Config { api_key: Some("k".into()), address: address.into(), ..Config::default() };
    let cases = [
        (Config { attempts: 0, ..Config::default() }, "timeout must be above 0, and attempts at least 1"),
        (
            Config { ca_file: Some("/no/such/file".into()), ..Config::default() },
            "read ca_file /no/such/file: No such file or directory (os error 2)",
        ),
        (Config { cert_file: Some("me.pem".into()), ..Config::default() }, "cert_file and key_file belong together"),
        (
            Config { api_key: Some("a\nb".into()), ..Config::default() },
            "the API key has characters that a header cannot have",
        ),
        (
            key("clipper.example:1347"),
            "the API key would be sent to clipper.example:1347 without TLS, for all to read: set ca_file or tls",
        ),
        (
            key("127.0.0.1.example:1347"),
            "the API key would be sent to 127.0.0.1.example:1347 without TLS, for all to read: set ca_file or tls",
        ),
    ];
    for (config, message) in cases {
        assert_eq!(Client::new(config).unwrap_err().message, message);
    }
    for address in ["localhost:1", "127.0.0.2:1", "[::1]:1", "unix:/tmp/s"] {
        assert!(Client::new(key(address)).is_ok(), "{address}");
    }
    assert!(!format!("{:?}", Config { api_key: Some("secret".into()), ..Config::default() }).contains("secret"));
}

#[tokio::test]
async fn nobody_there() {
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = attempts.clone();
    let config = Config {
        address: "unix:/no/such/socket".into(),
        attempts: 2,
        metadata: Some(std::sync::Arc::new(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })),
        ..Config::default()
    };
    let client = Client::new(config).unwrap();
    let error = client.query(Default::default()).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, reason::UNAVAILABLE), "{error}");
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 2);
    // Feedback without an id is not safe to repeat.
    client.feedback(Default::default()).await.unwrap_err();
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 3);
    let error = client.stream().query(Default::default()).await.unwrap_err();
    assert_eq!(error.reason, reason::UNAVAILABLE, "{error}");
}

#[test]
fn nobody_there_without_a_runtime() {
    let config = Config { address: "unix:/no/such/socket".into(), attempts: 1, ..Config::default() };
    let client = blocking::Client::new(config).unwrap();
    assert_eq!(client.query(Default::default()).unwrap_err().reason, reason::UNAVAILABLE);
}
