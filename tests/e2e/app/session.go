package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The time that connecting and each later step may take; RFC 5321 §4.5.3.2 allows minutes, which no test waits for.
const (
	connectLimit = 5 * time.Second
	stepLimit    = 20 * time.Second
)

// errUnknown marks a message whose final dot was sent and whose reply never came: kept or not, the client cannot know.
var errUnknown = errors.New("the connection broke after the final dot")

// Server says where and as whom messages are sent.
type Server struct {
	host, tls, caFile, certificate, user, from, to string
	port                                           int
}

// Flags names the fields of a Server on the command line. The password comes from the environment: PASSWORD.
func (s *Server) Flags(flags *flag.FlagSet) {
	flags.StringVar(&s.host, "host", "", "name of the server, which its certificate must carry")
	flags.IntVar(&s.port, "port", 587, "port")
	flags.StringVar(&s.tls, "tls", "starttls", "starttls, implicit or plain")
	flags.StringVar(&s.caFile, "ca", "", "file with the certificates to trust")
	flags.StringVar(&s.certificate, "certificate", "", "folder with tls.crt and tls.key to show; empty shows none")
	flags.StringVar(&s.user, "user", "", "user; empty sends without AUTH")
	flags.StringVar(&s.from, "from", "app@example.com", "reverse-path")
	flags.StringVar(&s.to, "to", "someone@example.net", "forward-path")
}

func (s *Server) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12}
	if s.certificate != "" {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(s.certificate, "tls.crt"), filepath.Join(s.certificate, "tls.key"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	if s.caFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(s.caFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", s.caFile)
	}
	return config, nil
}

// Session is one SMTP session that is ready for MAIL.
type Session struct {
	server     *Server
	connection net.Conn
	client     *smtp.Client
}

// Open connects, encrypts and authenticates as the Server says.
func (s *Server) Open() (*Session, error) {
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(s.host, fmt.Sprint(s.port))
	connection, err := net.DialTimeout("tcp", address, connectLimit)
	if err != nil {
		return nil, err
	}
	_ = connection.SetDeadline(time.Now().Add(stepLimit)) // fails on a closed connection only, which the next read reports
	raw := connection
	if s.tls == "implicit" {
		connection = tls.Client(connection, config)
	}
	client, err := smtp.NewClient(connection, s.host)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	session := &Session{server: s, connection: raw, client: client}
	if err := session.prepare(config); err != nil {
		session.Close()
		return nil, err
	}
	return session, nil
}

func (s *Session) prepare(config *tls.Config) error {
	if s.server.tls == "starttls" {
		if err := s.client.StartTLS(config); err != nil {
			return err
		}
	}
	if s.server.user == "" {
		return nil
	}
	return s.client.Auth(smtp.PlainAuth("", s.server.user, os.Getenv("PASSWORD"), s.server.host))
}

// Send sends one message. errUnknown: see there. A textproto.Error is the server's own reply.
func (s *Session) Send(token string) error {
	_ = s.connection.SetDeadline(time.Now().Add(stepLimit)) // as in Open
	if err := s.client.Mail(s.server.from); err != nil {
		return err
	}
	if err := s.client.Rcpt(s.server.to); err != nil {
		return err
	}
	content, err := s.client.Data()
	if err != nil {
		return err
	}
	if _, err := content.Write([]byte(message(token))); err != nil {
		return err
	}
	// Close sends the final dot and reads the reply.
	if err := content.Close(); err != nil {
		if isReply(err) {
			return err
		}
		return fmt.Errorf("%w: %v", errUnknown, err)
	}
	return nil
}

// Close says QUIT and closes the connection.
func (s *Session) Close() {
	_ = s.client.Quit()      // the server may be gone
	_ = s.connection.Close() // closed by Quit already when that worked
}

// message makes the content for a token: the same token, the same bytes. It begins with the token's field, and some of its lines
// begin with dots (RFC 5321 §4.5.2).
func message(token string) string {
	lines := []string{
		"X-Postroad-Test: " + token, "From: App <app@example.com>", "To: Someone <someone@example.net>", "Subject: " + token,
		"Date: Tue, 01 Jul 2025 10:00:00 +0000", "Message-ID: <" + token + "@app.example.com>", "", ".", "..two dots", token,
	}
	for line := range 12 {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", token, line))
		lines = append(lines, hex.EncodeToString(sum[:]))
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// digest is what the upstream computes over the content it received, from the token's field on.
func digest(token string) string {
	sum := sha256.Sum256([]byte(message(token)))
	return hex.EncodeToString(sum[:])
}
