//! The tables about certificates: `[ssl]`, `[cloudflare]`, `[acme]`.

use super::{COUNT, Kind, NETS, PORT, TEXTS, Table, key};

pub(crate) static SSL: Table = Table {
    doc: "Certificates and TLS. In a backend: for that site alone, what is not set there comes from the global table.",
    groups: &[&[
        key(
            "auto_cert",
            Kind::Flag,
            "false",
            "Whether certificates are requested and renewed. Until one is there the local CA's is shown.",
        ),
        key("domains", Kind::List(&Kind::Host), "all hosts of the sites", "Names to have certificates for."),
        key(
            "issuer",
            Kind::Choice(&["auto", "cloudflare-origin", "acme", "local", "file"]),
            "auto",
            "Who signs: `auto` is Cloudflare with a token, else ACME if `[acme]` is there, else the local CA.",
        ),
        key("cert", Kind::Path, "", "Certificate chain in PEM."),
        key("key", Kind::Path, "", "Private key in PEM."),
        key("min_version", Kind::Choice(&["1.2", "1.3"]), "1.2", "Oldest TLS version."),
        key("client_auth", Kind::Choice(&["off", "request", "require"]), "off", "Whether clients show a certificate."),
        key("client_ca", Kind::Path, "", "Authorities that sign client certificates, in PEM."),
        key(
            "unknown_sni",
            Kind::Choice(&["reject", "default"]),
            "reject",
            "What a client gets that asks for a name nobody has. One that asks for none (by address) gets the certificate of `[ssl]`, of the site `_` or of an address, if there is one; else the same.",
        ),
        key(
            "early_data",
            Kind::Flag,
            "false",
            "Whether HTTP/3 clients that come back may ask before the handshake is over (0-RTT). Requests that change something are then told to wait (425), and apps see `Early-Data: 1` (RFC 8470).",
        ),
        key(
            "ktls",
            Kind::Flag,
            "false",
            "Whether the kernel encrypts (kTLS) for HTTP/1.1 clients with TLS 1.3 that ask for a file of 256 KiB or more which others have just asked for, so that it goes out without being copied. Needs the kernel's module `tls`; without it everything is encrypted here, as ever. Before Linux 6.14 a client that changes its keys is disconnected.",
        ),
        key(
            "storage",
            Kind::Path,
            "certs in the state directory",
            "Where certificates and their keys are kept; several daemons may share it.",
        ),
    ]],
};

pub(crate) static CLOUDFLARE: Table = Table {
    doc: "The Cloudflare account and zone.",
    groups: &[&[
        key(
            "api_token",
            Kind::Secret,
            "",
            "API token with Zone > SSL and Certificates > Edit. Not a global or an Origin CA key.",
        ),
        key(
            "api_token_file",
            Kind::Path,
            "",
            "File that holds the token; a new one in it counts from the next call on.",
        ),
        key("zone_id", Kind::Text, "looked up by name", "The zone. Looking it up needs Zone > Zone > Read."),
        key(
            "account_id",
            Kind::Text,
            "",
            "The account: for its tokens (`cfat_`), and where zones of several accounts share a name.",
        ),
        key(
            "api_base",
            Kind::WebUrl,
            "https://api.cloudflare.com/client/v4",
            "Address of the API; http:// only on this machine.",
        ),
        key(
            "trust",
            Kind::Flag,
            "false",
            "Whether Cloudflare's ranges count as trusted proxies: the client is whom CF-Connecting-IP names. What visitors could have written themselves (X-Real-IP, Forwarded, ...) is believed of nobody for that.",
        ),
        key(
            "only",
            Kind::Flag,
            "false",
            "Whether connections from elsewhere are refused. Machines of your own that ask directly go into `only_exempt`.",
        ),
        key("only_exempt", NETS, "[]", "Address ranges that are served although they are not Cloudflare's."),
        key(
            "only_refusal",
            Kind::Choice(&["close", "answer"]),
            "close",
            "What others get: their connection is closed before TLS begins, or they are answered with 403.",
        ),
        key(
            "origin_pulls",
            Kind::Flag,
            "false",
            "Whether Cloudflare has to show its client certificate, to every site that does not say `client_auth` itself. It is signed by `[ssl] client_ca`; without one by Cloudflare's own authority, which proves that it is Cloudflare but not that it is your account.",
        ),
        key(
            "origin_ca_validity_days",
            COUNT,
            "90",
            "Days that origin certificates are asked for: 7, 30, 90, 365, 730, 1095 or 5475.",
        ),
        key(
            "origin_ca_roots",
            Kind::Path,
            "",
            "Roots of Origin CA in PEM. With them, what comes from the API has to be signed by one.",
        ),
    ]],
};

pub(crate) static ACME: Table = Table {
    doc: "An ACME certificate authority. The table's presence accepts its terms.",
    groups: &[&[
        key("directory", Kind::WebUrl, "Let's Encrypt's", "Directory address of the authority."),
        key("contact", TEXTS, "[]", "Mail addresses for the account."),
        key(
            "challenge",
            Kind::Choice(&["auto", "http-01", "tls-alpn-01", "dns-01"]),
            "auto",
            "How control of a name is shown.",
        ),
        key(
            "http_port_public",
            PORT,
            "80",
            "The port under which the authority reaches us over HTTP; 0 if it does not, so that tls-alpn-01 is chosen.",
        ),
        key("profile", Kind::Text, "", "Certificate profile to ask for."),
        key("eab", Kind::Table(&EAB), "", "External account binding."),
        key("ca_file", Kind::Path, "", "Authority to trust when speaking to the directory, in PEM."),
    ]],
};

static EAB: Table = Table {
    doc: "External account binding.",
    groups: &[&[
        key("key_id", Kind::Text, "", "Identifier of the key."),
        key("hmac_key", Kind::Secret, "", "The key, in base64url."),
        key("hmac_key_file", Kind::Path, "", "File that holds the key."),
    ]],
};
