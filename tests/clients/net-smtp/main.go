// Sends one message with Go's net/smtp. What to send and where is in the environment: tests/clients/send.rs.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"strings"
)

func main() {
	if err := send(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func send() error {
	message, err := os.ReadFile(os.Getenv("MESSAGE"))
	if err != nil {
		return err
	}
	recipients, err := os.ReadFile(os.Getenv("RCPT_TO"))
	if err != nil {
		return err
	}
	client, err := connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if os.Getenv("SMTP_MECHANISM") == "PLAIN" {
		auth := smtp.PlainAuth("", os.Getenv("SMTP_USER"), os.Getenv("SMTP_PASSWORD"), os.Getenv("SMTP_HOST"))
		if err := client.Auth(auth); err != nil {
			return err
		}
	}
	if err := client.Mail(os.Getenv("MAIL_FROM")); err != nil {
		return err
	}
	for _, recipient := range strings.Fields(string(recipients)) {
		if err := client.Rcpt(recipient); err != nil {
			return err
		}
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := data.Write(message); err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	return client.Quit()
}

func connect() (*smtp.Client, error) {
	host := os.Getenv("SMTP_HOST")
	address := net.JoinHostPort(host, os.Getenv("SMTP_PORT"))
	authority, err := os.ReadFile(os.Getenv("SMTP_CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("SMTP_CA holds no certificate")
	}
	config := &tls.Config{ServerName: host, RootCAs: roots}
	if os.Getenv("SMTP_SECURITY") == "implicit" {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			return nil, err
		}
		return smtp.NewClient(conn, host)
	}
	client, err := smtp.Dial(address)
	if err != nil {
		return nil, err
	}
	if os.Getenv("SMTP_SECURITY") == "starttls" {
		if err := client.StartTLS(config); err != nil {
			return nil, err
		}
	}
	return client, nil
}
