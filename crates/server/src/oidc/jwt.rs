//! Signed tokens (JWT, RFC 7519) of an identity provider: read, and checked against its keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Longest token that is looked at.
const TOKEN_BYTES: usize = 16 << 10;
/// How far the clocks of provider and service may differ, seconds.
const LEEWAY: i64 = 60;

/// A public key of the provider, as RFC 7517 writes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PublicKey {
    pub(super) kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// A token whose signature is not checked yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    header: Header,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Value,
}

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) nonce: Option<&'a str>,
    /// Seconds since 1970.
    pub(super) now: i64,
}

fn decode(part: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of the token is not base64url")
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > TOKEN_BYTES {
            return Err("the token is too long");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("it has not the form of a token")?;
        let (header, claims) = signed.split_once('.').ok_or("it has not the form of a token")?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| "the token's header is not valid")?;
        if header.crit.is_some() {
            return Err("the token demands extensions that are not known here");
        }
        let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| "the token's claims are not JSON")?;
        Ok(Self { header, signed, signature: decode(signature)?, claims })
    }

    /// Name of the key that it says it is signed with.
    pub(super) fn key_name(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Its claims, once it is signed by one of the keys and says what is expected.
    pub(super) fn checked(self, keys: &[PublicKey], expected: Expected<'_>) -> Result<Value, &'static str> {
        let fits = |key: &&PublicKey| {
            key.usage.as_deref().is_none_or(|usage| usage == "sig") && (self.header.kid.is_none() || key.kid == self.header.kid)
        };
        if !keys.iter().filter(fits).any(|key| self.is_signed_by(key)) {
            return Err("the token is not signed by a key of the provider");
        }
        let claims = self.claims;
        if claims["iss"].as_str() != Some(expected.issuer) {
            return Err("the token is of another issuer");
        }
        let is_audience = |value: &Value| value.as_str() == Some(expected.audience);
        if !is_audience(&claims["aud"]) && !claims["aud"].as_array().is_some_and(|all| all.iter().any(is_audience)) {
            return Err("the token is for another audience");
        }
        let time = |name: &str| claims[name].as_f64().map(|seconds| seconds as i64);
        match time("exp") {
            None => return Err("the token never expires"),
            Some(expires) if expires + LEEWAY <= expected.now => return Err("the token has expired"),
            Some(_) => {}
        }
        if time("nbf").is_some_and(|from| from - LEEWAY > expected.now) {
            return Err("the token is not valid yet");
        }
        if expected.nonce.is_some() && claims["nonce"].as_str() != expected.nonce {
            return Err("the token is not the answer to this log-in");
        }
        if claims["sub"].as_str().is_none_or(str::is_empty) {
            return Err("the token names nobody");
        }
        Ok(claims)
    }

    /// Whether the signature is by this key. The algorithm has to be one of the key's kind: a public key is never taken for a shared secret, and `none` is none.
    fn is_signed_by(&self, key: &PublicKey) -> bool {
        let part = |part: &Option<String>| part.as_deref().and_then(|part| decode(part).ok());
        let rsa = |parameters: &RsaParameters| {
            let (Some(n), Some(e)) = (part(&key.n), part(&key.e)) else { return false };
            key.kty == "RSA" && RsaPublicKeyComponents { n, e }.verify(parameters, self.signed.as_bytes(), &self.signature).is_ok()
        };
        let curve = |name: &str, algorithm: &'static EcdsaVerificationAlgorithm, bytes: usize| {
            let (Some(x), Some(y)) = (part(&key.x), part(&key.y)) else { return false };
            let whole = key.kty == "EC" && key.crv.as_deref() == Some(name) && x.len() == bytes && y.len() == bytes;
            let point = [&[4], &x[..], &y[..]].concat();
            whole && UnparsedPublicKey::new(algorithm, point).verify(self.signed.as_bytes(), &self.signature).is_ok()
        };
        match self.header.alg.as_str() {
            "RS256" => rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => rsa(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => rsa(&RSA_PSS_2048_8192_SHA256),
            "PS384" => rsa(&RSA_PSS_2048_8192_SHA384),
            "PS512" => rsa(&RSA_PSS_2048_8192_SHA512),
            "ES256" => curve("P-256", &ECDSA_P256_SHA256_FIXED, 32),
            "ES384" => curve("P-384", &ECDSA_P384_SHA384_FIXED, 48),
            "EdDSA" if key.kty == "OKP" && key.crv.as_deref() == Some("Ed25519") => {
                part(&key.x).is_some_and(|x| UnparsedPublicKey::new(&ED25519, x).verify(self.signed.as_bytes(), &self.signature).is_ok())
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    struct Provider {
        pair: EcdsaKeyPair,
        key: PublicKey,
    }

    impl Provider {
        fn new() -> Self {
            let random = SystemRandom::new();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let key = json!({ "kid": "k1", "kty": "EC", "crv": "P-256", "use": "sig", "x": part(&point[1..33]), "y": part(&point[33..]) });
            Self { pair, key: serde_json::from_value(key).unwrap() }
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.example.org", "aud": ["other", "muniment"], "sub": "u1", "exp": 2000, "nonce": "n" })
    }

    fn check(token: &str, keys: &[PublicKey], now: i64) -> Result<Value, &'static str> {
        let expected = Expected { issuer: "https://id.example.org", audience: "muniment", nonce: Some("n"), now };
        Token::read(token)?.checked(keys, expected)
    }

    #[test]
    fn a_good_token_is_accepted_and_every_other_refused() {
        let provider = Provider::new();
        let keys = [provider.key.clone()];
        let header = json!({ "alg": "ES256", "kid": "k1" });
        let good = provider.sign(&header, &claims());
        assert_eq!(check(&good, &keys, 1000).unwrap()["sub"], "u1");
        assert!(check(&good, &keys, 2059).is_ok());
        assert_eq!(check(&good, &keys, 2060).unwrap_err(), "the token has expired");
        let changed = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            check(&provider.sign(&header, &claims), &keys, 1000).unwrap_err()
        };
        assert_eq!(changed("iss", json!("https://evil.example.org")), "the token is of another issuer");
        assert_eq!(changed("aud", json!("other")), "the token is for another audience");
        assert_eq!(changed("nonce", json!("m")), "the token is not the answer to this log-in");
        assert_eq!(changed("exp", Value::Null), "the token never expires");
        assert_eq!(changed("nbf", json!(1061)), "the token is not valid yet");
        assert_eq!(changed("sub", json!("")), "the token names nobody");
    }

    #[test]
    fn signatures_are_checked_with_the_keys_of_the_provider_only() {
        let (provider, other) = (Provider::new(), Provider::new());
        let keys = [provider.key.clone()];
        let unsigned = "the token is not signed by a key of the provider";
        let header = json!({ "alg": "ES256", "kid": "k1" });
        assert_eq!(check(&other.sign(&header, &claims()), &keys, 1000).unwrap_err(), unsigned);
        for header in
            [json!({ "alg": "none", "kid": "k1" }), json!({ "alg": "HS256", "kid": "k1" }), json!({ "alg": "ES256", "kid": "k2" })]
        {
            assert_eq!(check(&provider.sign(&header, &claims()), &keys, 1000).unwrap_err(), unsigned, "{header}");
        }
        let good = provider.sign(&header, &claims());
        let (signed, _) = good.rsplit_once('.').unwrap();
        assert_eq!(check(&format!("{signed}."), &keys, 1000).unwrap_err(), unsigned);
        let forged = good.replacen(good.split('.').nth(1).unwrap(), &URL_SAFE_NO_PAD.encode(json!({ "sub": "root" }).to_string()), 1);
        assert_eq!(check(&forged, &keys, 1000).unwrap_err(), unsigned);
        let demanding = provider.sign(&json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"] }), &claims());
        assert!(check(&demanding, &keys, 1000).is_err());
        for broken in ["", ".", "..", "a.b.c", &"x".repeat(TOKEN_BYTES + 1)] {
            assert!(Token::read(broken).is_err(), "{broken:.10}");
        }
    }
}
