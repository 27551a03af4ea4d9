//! Settings of masks, TLS and the identity provider, resolved.

use super::ConfigError;
use super::settings::{Oidc, Settings, Tls};
use muniment_access::{Masking, Role, UnknownRole};
use muniment_server::{OidcConfig, TlsConfig};
use std::collections::BTreeMap;

/// Words what is wrong with a key's value.
type Wrong<'a> = &'a dyn Fn(&str, String) -> ConfigError;

/// What is masked and shown by configuration.
pub(super) fn masking(settings: &Settings, wrong: Wrong<'_>) -> Result<Masking, ConfigError> {
    let (masked, shown) = (&settings.access.masked, &settings.access.shown);
    Masking::new(masked, shown).map_err(|error| {
        let key = if masked.contains(&error.entry) { "access.masked" } else { "access.shown" };
        wrong(key, error.to_string())
    })
}

/// The certificate, if one is named.
pub(super) fn tls(settings: &Settings, wrong: Wrong<'_>) -> Result<Option<TlsConfig>, ConfigError> {
    match &settings.tls {
        Tls { certificate: None, key: None } => Ok(None),
        Tls { certificate: Some(certificate), key: Some(key) } => {
            Ok(Some(TlsConfig { certificate: certificate.clone(), key: key.clone() }))
        }
        Tls { certificate: None, .. } => Err(wrong("tls.certificate", "a key goes with a certificate".to_owned())),
        Tls { key: None, .. } => Err(wrong("tls.key", "a certificate goes with its key".to_owned())),
    }
}

/// The identity provider, if one is named.
pub(super) fn oidc(settings: &Settings, wrong: Wrong<'_>) -> Result<Option<OidcConfig>, ConfigError> {
    let Oidc { issuer, client_id, client_secret_file, public_url, audience, scopes, roles_claim, roles, ca } = settings.oidc.clone();
    let Some(issuer) = issuer else { return Ok(None) };
    for (key, url) in [("oidc.issuer", Some(&issuer)), ("oidc.public_url", public_url.as_ref())] {
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return Err(wrong(key, "it begins with https://".to_owned()));
        }
    }
    let client_id = client_id.ok_or_else(|| wrong("oidc.client_id", "the provider knows this service by a client id".to_owned()))?;
    let secret = client_secret_file.map(|path| {
        let text = std::fs::read_to_string(&path).map_err(|error| wrong("oidc.client_secret_file", format!("{}: {error}", path.display())));
        text.map(|text| text.trim().to_owned())
    });
    if !scopes.split_whitespace().any(|scope| scope == "openid") {
        return Err(wrong("oidc.scopes", "`openid` is among them".to_owned()));
    }
    let mut meanings = BTreeMap::new();
    for pair in &roles {
        let (value, role) = pair.rsplit_once('=').ok_or_else(|| wrong("oidc.roles", format!("`{pair}` is not `value=role`")))?;
        let role: Role = role.trim().parse().map_err(|error: UnknownRole| wrong("oidc.roles", error.to_string()))?;
        meanings.insert(value.trim().to_owned(), role);
    }
    let client_secret = secret.transpose()?;
    Ok(Some(OidcConfig { issuer, client_id, client_secret, audience, public_url, scopes, roles_claim, roles: meanings, ca }))
}
