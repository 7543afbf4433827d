import jakarta.mail.Address;
import jakarta.mail.MessagingException;
import jakarta.mail.Session;
import jakarta.mail.internet.InternetAddress;
import jakarta.mail.internet.MimeMessage;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.Properties;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Sends one message with Jakarta Mail. What to send and where is in the environment: tests/clients/send.rs. */
public class Send {
    public static void main(String[] arguments) throws Exception {
        var environment = System.getenv();
        var session = Session.getInstance(properties());
        MimeMessage message;
        try (InputStream file = new FileInputStream(environment.get("MESSAGE"))) {
            message = new MimeMessage(session, file);
        }
        List<String> recipients = Files.readAllLines(Path.of(environment.get("RCPT_TO")));
        Address[] addresses = new Address[recipients.size()];
        for (int i = 0; i < addresses.length; i++) {
            addresses[i] = new InternetAddress(recipients.get(i));
        }
        try (var transport = session.getTransport()) {
            if (environment.get("SMTP_MECHANISM").isEmpty()) {
                transport.connect();
            } else {
                transport.connect(environment.get("SMTP_USER"), environment.get("SMTP_PASSWORD"));
            }
            transport.sendMessage(message, addresses);
        } catch (MessagingException error) {
            for (Exception cause = error; cause != null; ) {
                System.err.println(cause);
                cause = cause instanceof MessagingException chained ? chained.getNextException() : null;
            }
            System.exit(1);
        }
    }

    private static Properties properties() throws Exception {
        var environment = System.getenv();
        boolean implicit = environment.get("SMTP_SECURITY").equals("implicit");
        String protocol = implicit ? "smtps" : "smtp";
        String prefix = "mail." + protocol + ".";
        var properties = new Properties();
        properties.put("mail.transport.protocol", protocol);
        properties.put("mail.mime.allowutf8", "true");
        properties.put(prefix + "host", environment.get("SMTP_HOST"));
        properties.put(prefix + "port", environment.get("SMTP_PORT"));
        properties.put(prefix + "from", environment.get("MAIL_FROM"));
        properties.put(prefix + "localhost", "client.example");
        properties.put(prefix + "allow8bitmime", "true");
        properties.put(prefix + "ssl.checkserveridentity", "true");
        properties.put(prefix + "ssl.socketFactory", trusting(environment.get("SMTP_CA")).getSocketFactory());
        properties.put(prefix + "starttls.enable", environment.get("SMTP_SECURITY").equals("starttls"));
        properties.put(prefix + "starttls.required", environment.get("SMTP_SECURITY").equals("starttls"));
        if (!environment.get("SMTP_MECHANISM").isEmpty()) {
            properties.put(prefix + "auth", "true");
            properties.put(prefix + "auth.mechanisms", environment.get("SMTP_MECHANISM"));
        }
        return properties;
    }

    private static SSLContext trusting(String authority) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream file = new FileInputStream(authority)) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }
}
