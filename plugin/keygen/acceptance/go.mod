module github.com/usher-agent/usher/plugin/keygen/acceptance

go 1.26.0

replace (
	github.com/usher-agent/usher => ../../..
	github.com/usher-agent/usher/client => ../../../client
)

require (
	github.com/keygen-sh/keygen-go/v3 v3.2.1
	github.com/usher-agent/usher v0.0.0
	github.com/usher-agent/usher/client v0.0.0
)

require (
	github.com/go-jose/go-jose/v4 v4.1.9 // indirect
	github.com/go-json-experiment/json v1.27.2 // indirect
	github.com/google/go-querystring v1.1.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.1 // indirect
	github.com/keygen-sh/go-update v1.0.0 // indirect
	github.com/keygen-sh/jsonapi-go v1.2.1 // indirect
	github.com/oasisprotocol/curve25519-voi v0.0.0-20211102120939-d5a936accd94 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
