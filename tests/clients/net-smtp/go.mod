module postroad.dev/tests/clients/net-smtp

go 1.21
