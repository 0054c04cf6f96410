//! Pages of miwid itself: `/health`, `/ready`, `/metrics` and the welcome page, as an axum router.
