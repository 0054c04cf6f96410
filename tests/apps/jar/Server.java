// A program in a JAR that reads its port as Spring Boot does.
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

public class Server {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(System.getenv("SERVER_PORT"));
        InetAddress address = InetAddress.getByName(System.getenv("SERVER_ADDRESS"));
        HttpServer server = HttpServer.create(new InetSocketAddress(address, port), 256);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            byte[] body = ("jar " + String.join(" ", arguments) + " pid=" + ProcessHandle.current().pid()
                + " heap=" + (Runtime.getRuntime().maxMemory() >> 20) + "\n").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("listening on " + port);
    }
}
